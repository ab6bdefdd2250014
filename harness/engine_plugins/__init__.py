"""Plugins that let real vLLM run the connectors on a CPU; they are loaded inside vLLM's own processes.

The engine may run under another interpreter in which the harness is not installed. So these modules import nothing of
``harness``, only the standard library, torch, vLLM, NIXL and, with relative imports, each other. At launch,
:mod:`harness.deploy.plugin_path` copies this folder under the name ``pd_harness_engine_plugins`` to a directory on the
engine's ``PYTHONPATH``.

A plugin acts only on request: :mod:`nixl_progress` and :mod:`queue_pause` if an environment variable is set,
:mod:`cpu_offload` if the connector's configuration names it.
"""
