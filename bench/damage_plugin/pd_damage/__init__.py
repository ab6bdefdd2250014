"""Damages KV in the decode worker of a real vLLM, after a NIXL transfer has completed.

For ``bench/damage.py`` and for the live tests of damage; on the CPU and on GPUs, vLLM 0.26 to 0.32.

The folder that holds this package is a directory for an engine's ``PYTHONPATH``: the metadata beside the package names
its entry point, and nothing is installed. The package imports nothing of ``harness``: the engine may run under another
interpreter, and the harness must find the damage by itself.

- :mod:`pages`: the KV cache in the layouts of vLLM's attention backends.
- :mod:`prompt`: what one request received.
- :mod:`kinds`: the kinds of damage.
- :mod:`orders`: which kind and how often (a file, read again at each transfer), and the ledger of the damage done.
- :mod:`saboteur`, :mod:`plugin`: the hooks.
"""
