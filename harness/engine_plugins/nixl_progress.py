"""Lets NIXL's progress thread sleep between polls, so that two engines fit on two cores.

NIXL's Python API fixes the progress delay of every agent at 0, and vLLM has no setting for it: in each process, the
thread polls without pause and takes a whole core from the engine. With as many cores as threads, polling without pause
is faster, so this plugin acts only if ``PD_HARNESS_NIXL_PROGRESS_DELAY_US`` is set, in microseconds.

How it works (NIXL 1.0 to 1.5): ``nixl._api`` looks up the agent's class in its bindings module each time it makes an
agent. This plugin puts a subclass there that sets the delay in the agent's configuration. vLLM calls :func:`register`
once per process, through the entry point group ``vllm.general_plugins``, before any connector exists. If NIXL makes its
agents in another way, :func:`register` raises, because otherwise the engine would run, but slowly.
"""

import importlib
import logging
import os
from typing import Any

DELAY_VARIABLE = "PD_HARNESS_NIXL_PROGRESS_DELAY_US"

# A child of vLLM's logger, whose handlers print the line and the name of the process.
_log = logging.getLogger("vllm.pd_harness_engine_plugins.nixl_progress")


def register() -> None:
    """Set the progress delay of every NIXL agent made in this process; do nothing if the variable is unset.

    Raises RuntimeError, which ends vLLM's process, if the variable is not a positive integer, or if NIXL cannot be
    imported or makes its agents in another way.
    """
    text = os.environ.get(DELAY_VARIABLE)
    if text is not None:
        set_progress_delay(_nixl_api(), _microseconds(text))


def set_progress_delay(api: Any, microseconds: int) -> None:
    """Make agents of the module ``api`` (``nixl._api``) poll every ``microseconds``; a later call changes it."""
    bindings = _bindings(api)
    agent = getattr(bindings.nixlAgent, "without_delay", bindings.nixlAgent)
    bindings.nixlAgent = _with_delay(agent, microseconds)
    _log.info("NIXL's progress thread sleeps %d us between polls (%s)", microseconds, DELAY_VARIABLE)


def _with_delay(agent: type[Any], microseconds: int) -> type[Any]:
    class DelayedAgent(agent):  # type: ignore[misc]  # the base is known only at run time
        without_delay = agent

        def __init__(self, name: str, config: Any) -> None:
            config.pthrDelay = microseconds
            super().__init__(name, config)

    return DelayedAgent


def _bindings(api: Any) -> Any:
    bindings: Any = getattr(api, "nixlBind", None)
    missing = [name for name in ("nixlAgent", "nixlAgentConfig") if not hasattr(bindings, name)]
    if missing or not hasattr(bindings.nixlAgentConfig, "pthrDelay"):
        raise RuntimeError(
            f"{DELAY_VARIABLE} is set, but this NIXL makes its agents differently from NIXL 1.0 to 1.5 "
            f"({', '.join(missing) or 'nixlAgentConfig.pthrDelay'} not found in nixl._api.nixlBind). "
            "Unset the variable and give each engine its own cores, or install nixl 1.5."
        )
    return bindings


def _microseconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise RuntimeError(
            f"{DELAY_VARIABLE} is {text!r}; it must be a whole number of microseconds above 0, such as 500. "
            "Unset it to leave NIXL's progress thread as it is."
        )
    return int(text)


def _nixl_api() -> Any:
    # Avoids a memory leak in UCX. vLLM sets the variable before it imports NIXL, which is too late after this import.
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")
    try:
        return importlib.import_module("nixl._api")
    except ImportError as error:
        raise RuntimeError(
            f"{DELAY_VARIABLE} is set, but NIXL cannot be imported here ({error}). "
            "Install nixl beside vLLM, or unset the variable."
        ) from error
