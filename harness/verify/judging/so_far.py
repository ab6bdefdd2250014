"""What is known of a load's outputs while their verification goes on, as numbers for whoever watches. Pure."""

from harness.history import History
from harness.observer import VerifiedSoFar
from harness.verify.judging.compared import Match
from harness.verify.judging.evidence import look_at_outputs
from harness.verify.judging.witness import witnessed


def witnessed_so_far(history: History, planned: int) -> VerifiedSoFar:
    """Before any output was verified: how many first tokens were compared. ``planned``: outputs to be verified."""
    first = witnessed(history)
    return VerifiedSoFar(planned, first.served, witnessed=len(first.gaps))


def verified_so_far(history: History, planned: int) -> VerifiedSoFar:
    """The outputs of each kind. A wrong one may still turn out to be right, when noise is known better."""
    first, every = witnessed(history), look_at_outputs(history).compared
    matches = [one.match for one in every]
    return VerifiedSoFar(
        planned,
        len(every),
        verified=matches.count(Match.EXACT) + matches.count(Match.TIE),
        witnessed=len(first.gaps),
        doubtful=sum(bool(one.doubt) and one.match is not Match.MISMATCH for one in every),
        wrong=matches.count(Match.MISMATCH),
    )
