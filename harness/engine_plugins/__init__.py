"""What real vLLM needs to run the connectors on a CPU; loaded inside vLLM's own processes.

The engine may run under another interpreter, where the harness is not installed. So these modules import
nothing of ``harness``: only the standard library, torch, vLLM and NIXL, and each other by relative imports.
At launch :mod:`harness.deploy.plugin_path` copies this folder, under the name ``pd_harness_engine_plugins``,
to a directory on the engine's ``PYTHONPATH``.

Nothing here acts unless it is asked to: :mod:`nixl_progress` by an environment variable, :mod:`cpu_offload`
by name in the connector's configuration.
"""
