"""What the second process does: follow the entries of a run, and predict when the load has ended."""

from collections.abc import Iterable, Iterator

from harness.checkers import Along, Predictions, digest_of, predictable
from harness.facts import Deployment
from harness.history import Entry, History, RunEnded, VerificationPlanned


def predictions_along(deployment: Deployment, entries: Iterable[Entry]) -> Iterator[Predictions]:
    """Predictions for the run so far, made when the load has ended; and again at the end if they no longer fit.

    ``deployment``: without credentials. Ends with the run.
    """
    along, seen = Along(deployment), list[Entry]()
    made: Predictions | None = None
    for entry in entries:
        seen.append(entry)
        along.see(entry)
        if isinstance(entry, VerificationPlanned | RunEnded):
            history = History(tuple(seen))
            if made is None or made.operations != digest_of(predictable(history)):
                made = along.predictions(history)
                yield made
        if isinstance(entry, RunEnded):
            return
