"""What the second process does: follow the entries of a run, and predict when the load has ended."""

from collections.abc import Iterable, Iterator

from harness.checkers import Predictions, digest_of, predictable, predictions_of
from harness.collector import collector_paused
from harness.facts import Deployment
from harness.history import Entry, History, RunEnded, VerificationPlanned


def predictions_along(deployment: Deployment, entries: Iterable[Entry]) -> Iterator[Predictions]:
    """Predictions for the run so far, made when the load has ended; and again at the end if they no longer fit.

    ``deployment``: without credentials. Ends with the run.
    """
    seen: list[Entry] = []
    made: Predictions | None = None
    for entry in entries:
        seen.append(entry)
        if not isinstance(entry, VerificationPlanned | RunEnded):
            continue
        with collector_paused():
            history = History(tuple(seen))
            if made is None or made.operations != digest_of(predictable(history)):
                made = predictions_of(deployment, history)
                yield made
        if isinstance(entry, RunEnded):
            return
