"""Queries of a history that several reports need."""

from harness.history import History, Operation, RunStarted
from harness.scenario import Route


def run_started(history: History) -> RunStarted:
    """The history's first entry. Raises ValueError if there is none."""
    for entry in history.of(RunStarted):
        return entry
    raise ValueError("a history without a run_started entry cannot be reported")


def under_test(history: History) -> tuple[Operation, ...]:
    """The operations that are measured: requests of the load through the proxy.

    Not those that ask its prompts again after faults, which are sent at another pace and for shorter answers.
    """
    sent = history.operations(route=Route.PROXY)
    return tuple(op for op in sent if op.request.of_load and op.request.about is None)
