"""What a run with a fault showed, in one row. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.fault_cases import Case, Shortfall
from harness.checkers.drained import left_hanging
from harness.checkers.windows import Window, windows
from harness.facts import Deployment
from harness.history import Ending, History, Operation, Outcome
from harness.scenario import Route
from harness.verdict import Finding, FindingKind, Judgement, Verdict

_WRONG = (FindingKind.WRONG_OUTPUT, FindingKind.LEAK, FindingKind.CACHE)
COLUMNS = (
    *("fault", "verdict", "requests OK", "failed clearly", "wrong", "hung", "bystanders harmed", "blocks leaked"),
    "recovered in s",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One case. Requests are those of the load or workload, without the reads after it."""

    group: str
    fault: str
    """What was done, and on which deployment; see :attr:`Case.text`."""
    verdict: Verdict
    completed: int
    failed: int
    """Ended with an error, or without an answer, before the client's time limit."""
    wrong: int
    """Answered with something other than the answer to their prompt, re-reads included."""
    hung: int
    """Not answered within the client's time limit."""
    bystanders: int
    """Requests that failed, hung or were wrong although no fault was at work; with references to KV that were spoiled,
    requests without one."""
    leaked: int
    """Servers that kept KV blocks, or requests, after the lease."""
    recovered: float | None
    """Seconds from the healing to the first completed request that was sent after it; None: not known."""
    evidence: str
    """What was observed of the fault, or why nothing was."""
    remarks: tuple[str, ...] = ()
    """What the checks that are not valid say."""
    engine: bool = False
    """Whether what is wrong is the engine's known shortfall, and nothing else."""
    meant: bool = False
    """Whether the verdict is the one that is right, though not valid; see :attr:`Case.meant`."""
    missed: bool = False
    """Whether the run is valid, which nobody could tell; see :attr:`Case.meant`."""
    tries: int = 1
    """How often the case was run; the runs before the last one were unknown."""

    @property
    def counts(self) -> Verdict:
        """The verdict that counts for the whole table: what is known of the engine, or meant, does not."""
        if self.missed:
            return Verdict.INVALID
        return Verdict.VALID if self.engine or self.meant else self.verdict

    def cells(self, mark: str = "") -> tuple[str, ...]:
        """The row's texts, one for each of ``COLUMNS``; ``mark`` is added to the verdict."""
        recovered = "—" if self.recovered is None else f"{self.recovered:.1f}"
        counts = (self.completed, self.failed, self.wrong, self.hung, self.bystanders, self.leaked)
        tries = f" (run {self.tries}; those before were unknown)" if self.tries > 1 else ""
        return (f"{self.fault}{tries}", f"{self.verdict}{mark}", *(f"{count:,}" for count in counts), recovered)

    @property
    def as_json(self) -> dict[str, Any]:
        """The row as ``read`` takes it."""
        return asdict(self)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Row":
        """The row that was stored."""
        remarks, verdict = tuple(stored["remarks"]), Verdict(stored["verdict"])
        return cls(**{**stored, "remarks": remarks, "verdict": verdict})


def row(  # noqa: PLR0913 - a case, and all that is known of its run
    group: str, case: Case, deployment: Deployment, history: History, judgement: Judgement, *, known: bool = False
) -> Row:
    """The row of a run of the case. ``known``: whether a workload's known fault explains all that is wrong."""
    found = windows(history)
    load = list(_load(history, found))
    wrong = {finding.request for check in judgement.checks for finding in check.findings if finding.kind in _WRONG}
    bad = [one for one in load if one.outcome is not Outcome.OK or one.request.request_id in wrong]
    left = {one.request.request_id for window in found for one in left_hanging(deployment, history, window)}
    hung = sum(one.ended.ending is Ending.TIMED_OUT or one.request.request_id in left for one in load)
    return Row(
        group=group,
        fault=case.text,
        verdict=judgement.verdict,
        completed=sum(one.outcome is Outcome.OK for one in load),
        failed=sum(one.outcome is not Outcome.OK for one in load) - hung,
        wrong=len(wrong),
        hung=hung,
        bystanders=sum(_beside(one, found, load) for one in bad),
        leaked=len({finding.server for finding in _leaks(judgement)}),
        recovered=max((one.recovered_after for one in found if one.recovered_after is not None), default=None),
        evidence="; ".join(one.evidence or one.text or "the fault was not begun" for one in found),
        remarks=tuple(f"{one.name}: {one.summary}" for one in judgement.checks if one.verdict is not Verdict.VALID),
        engine=known or _is_of_engine(case.shortfall, judgement, hung),
        meant=bool(case.meant) and judgement.verdict is case.must_be and not wrong and not hung,
        missed=bool(case.meant) and judgement.verdict is Verdict.VALID,
    )


def _load(history: History, found: Sequence[Window]) -> Iterator[Operation]:
    """The requests of the load: those through the proxy in the phases with faults, if there are any."""
    faulted = {(one.planned.scenario, one.planned.phase) for one in found}
    for one in history.operations():
        # If the harness's own client left, nothing failed.
        if one.ended.ending is Ending.LEFT or not one.request.of_load:
            continue
        # What keeps prefill busy beside a load is sent straight to it.
        if not faulted or ((one.sent.scenario, one.sent.phase) in faulted and one.request.route is Route.PROXY):
            yield one


def _beside(bad: Operation, found: Sequence[Window], load: Iterable[Operation]) -> bool:
    """Whether the request was none that the case was about."""
    if found:
        return not any(window.overlaps(bad) for window in found)
    return bad.request.reference_of is None and any(one.request.reference_of for one in load)


def _is_of_engine(shortfall: Shortfall | None, judgement: Judgement, hung: int) -> bool:
    wrong = {check.name for check in judgement.checks if check.verdict is Verdict.INVALID}
    if shortfall is None or (shortfall.hangs and not hung):
        return False
    return bool(wrong) and wrong <= shortfall.checks


def _leaks(judgement: Judgement) -> Iterator[Finding]:
    for check in judgement.checks:
        if check.name == "settled" and check.verdict is Verdict.INVALID:
            yield from check.findings
