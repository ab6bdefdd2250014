"""The history of a run: everything that happened, in the order in which the harness learned of it.

A run is judged from its history and the deployment's facts only, so that a later version can judge a stored run again,
offline. Entries are frozen. Times are seconds on the run's own monotonic clock; ``RunStarted.wall`` ties it to the
calendar.

An *operation* is one request. As in Jepsen, it is recorded twice, when it is sent and when it ends, and has one of
three outcomes. If the harness is killed, operations remain without an end; their outcome is ``INFO``.

Once an entry has been written to the run's journal, what it has for each token (prompt, answer, log-probabilities,
times) may lie there alone; it is read when it is asked for (:mod:`harness.deferred`). So checkers may ask every
operation for its ids, outcome and times at no cost, but should ask for tokens once, and keep numbers rather than
operations' tokens.
"""

from harness.history.ends import (
    END_SPELLED,
    Choice,
    Ended,
    Ending,
    Named,
    Outcome,
    TokenId,
    TokenLogprob,
    Usage,
)
from harness.history.entries import (
    DeadProcess,
    Decoding,
    Entry,
    Noted,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sent,
    VerificationPlanned,
)
from harness.history.faults import (
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    Tolerated,
)
from harness.history.measured import (
    ClientHealth,
    ClockCompared,
    NoiseMeasured,
    NoisyOutput,
    Sample,
    Sampled,
    Scraped,
    ScrapeFailed,
)
from harness.history.operations import (
    History,
    Operation,
)

__all__ = [
    "END_SPELLED",
    "Choice",
    "ClientHealth",
    "ClockCompared",
    "DeadProcess",
    "Decoding",
    "Ended",
    "Ending",
    "Entry",
    "FaultBegan",
    "FaultHealed",
    "FaultPlanned",
    "FaultProved",
    "History",
    "Named",
    "NoiseMeasured",
    "NoisyOutput",
    "Noted",
    "Operation",
    "Outcome",
    "PhaseStarted",
    "RunEnded",
    "RunStarted",
    "Sample",
    "Sampled",
    "ScrapeFailed",
    "Scraped",
    "Sent",
    "TokenId",
    "TokenLogprob",
    "Tolerated",
    "Usage",
    "VerificationPlanned",
]
