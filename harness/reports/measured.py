"""What a history is asked by every report."""

from harness.history import History, Operation, RunStarted
from harness.scenario import Route


def run_started(history: History) -> RunStarted:
    """How the run began. Raises ValueError if the history does not say."""
    for entry in history.of(RunStarted):
        return entry
    raise ValueError("a history without a run_started entry cannot be reported")


def under_test(history: History) -> tuple[Operation, ...]:
    """Requests on the path under test: through the proxy, neither references nor inquiries. These are measured."""
    return tuple(op for op in history.operations(route=Route.PROXY) if op.request.of_load)
