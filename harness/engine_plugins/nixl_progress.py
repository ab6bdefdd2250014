"""Lets NIXL's progress thread sleep between polls, so that two engines fit on two cores.

NIXL's Python API fixes the progress delay of every agent at 0: the thread polls without pause and takes a
whole core from the engine, in each process. vLLM has no setting for it. Where there are as many cores as
threads that is the faster choice, so this plugin acts only when ``PD_HARNESS_NIXL_PROGRESS_DELAY_US`` is set,
in microseconds.

The door (NIXL 1.0 to 1.5): ``nixl._api`` looks the agent's class up in its bindings module each time it makes
an agent. A subclass put there sets the delay on the configuration that it is handed, whoever made it. vLLM
calls :func:`register` once per process, through the entry point group ``vllm.general_plugins``, before any
connector exists. Where the door is not there, :func:`register` raises: an engine that came up without the
delay would only look slow.
"""

import importlib
import logging
import os
from typing import Any

DELAY_VARIABLE = "PD_HARNESS_NIXL_PROGRESS_DELAY_US"

# A child of vLLM's logger: its handlers print the line and name the process.
_log = logging.getLogger("vllm.pd_harness_engine_plugins.nixl_progress")


def register() -> None:
    """Set the progress delay of every NIXL agent made in this process; nothing if the variable is unset.

    Raises RuntimeError if the variable is not a positive integer, or if NIXL cannot be imported or is made
    differently: vLLM lets it end the process.
    """
    text = os.environ.get(DELAY_VARIABLE)
    if text is not None:
        set_progress_delay(_nixl_api(), _microseconds(text))


def set_progress_delay(api: Any, microseconds: int) -> None:
    """Make agents of the module ``api`` (``nixl._api``) poll every ``microseconds``; again, to change it."""
    bindings = _bindings_with_door(api)
    agent = getattr(bindings.nixlAgent, "polls_calmly_instead_of", bindings.nixlAgent)
    bindings.nixlAgent = _calm(agent, microseconds)
    _log.info("NIXL's progress thread sleeps %d us between polls (%s)", microseconds, DELAY_VARIABLE)


def _calm(agent: type[Any], microseconds: int) -> type[Any]:
    class CalmAgent(agent):  # type: ignore[misc]  # the base is known only at run time
        polls_calmly_instead_of = agent

        def __init__(self, name: str, config: Any) -> None:
            config.pthrDelay = microseconds
            super().__init__(name, config)

    return CalmAgent


def _bindings_with_door(api: Any) -> Any:
    bindings: Any = getattr(api, "nixlBind", None)
    missing = [name for name in ("nixlAgent", "nixlAgentConfig") if not hasattr(bindings, name)]
    if missing or not hasattr(bindings.nixlAgentConfig, "pthrDelay"):
        raise RuntimeError(
            f"{DELAY_VARIABLE} is set, but this NIXL makes its agents in another way than 1.0 to 1.5 do "
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
    # Against a memory leak in UCX; vLLM sets it before its own import of NIXL, but cannot after ours.
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")
    try:
        return importlib.import_module("nixl._api")
    except ImportError as error:
        raise RuntimeError(
            f"{DELAY_VARIABLE} is set, but NIXL cannot be imported here ({error}). "
            "Install nixl beside vLLM, or unset the variable."
        ) from error
