"""Makes the selftest's report from the results of all trials. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.selftest.interval import clopper_pearson, power_per_strike, requests_needed
from harness.selftest.loads import load_for
from harness.selftest.trial import Result, Trial
from harness.sim import BUGS, KINDS
from harness.verdict import Verdict

UNKNOWN_IS_RIGHT = {
    "counter_reset": "the counters of a restarted process begin at zero: its earlier counts are lost",
    "source_negative": "a counter that went backwards is no evidence",
}
"""Bugs that remove evidence, and the reasons why ``unknown`` is the right verdict."""


@dataclass(frozen=True, slots=True)
class AtRate:
    """One bug at one rate."""

    one_in: int
    runs: int
    """Runs with at least one bad request."""
    caught: int
    low: float
    """Lower bound of the share of caught runs, at 95 % confidence (Clopper-Pearson)."""
    high: float
    bad_requests: int


@dataclass(frozen=True, slots=True)
class BugRow:
    """One planted bug."""

    bug: str
    row: str
    load: str
    caught_by: tuple[str, ...]
    """Checkers that caught the bug, the most frequent first."""
    rates: tuple[AtRate, ...]
    wrong: int
    """Requests that read wrong KV."""
    named: int
    """Requests that read wrong KV and are named in the reports."""
    needed: int | None
    """Requests, at the rarest rate, after which a run is caught with 95 % confidence; None: never."""
    needed_at_most: int | None
    """Like ``needed``, for the lowest power of the checkers that is consistent with these runs."""
    clean_runs: int
    alarms: int
    """False alarms: clean runs (without a bug, under the same load) that were not valid."""

    @property
    def is_caught(self) -> bool:
        """Whether the bug struck at every rate and was caught in every run."""
        return all(0 < rate.runs == rate.caught for rate in self.rates)


@dataclass(frozen=True, slots=True)
class NoiseRow:
    """The clean runs under one kind of noise."""

    noise: str
    runs: int
    requests: int
    alarms: int
    """False alarms: runs that were not valid."""
    low: float
    high: float
    """Bounds of the share of such runs that would not be valid, at 95 % confidence (Clopper-Pearson)."""
    flipped: float
    """Share of the requests whose answers have a token other than the best."""


@dataclass(frozen=True, slots=True)
class SelftestReport:
    """The report of all trials."""

    rows: tuple[BugRow, ...]
    noises: tuple[NoiseRow, ...]
    """Clean runs by kind of noise."""
    clean_requests: int
    clean_runs: int
    alarms: tuple[str, ...]
    """False alarms: a line for each run without a bug that was not valid."""
    falsely_named: tuple[str, ...]
    """A line for each run, with or without a bug, whose report names requests that no bug affected."""
    accused: int
    """These requests, of all runs."""
    flipped: float
    """Share of requests in clean runs whose answers have a token other than the best."""

    @property
    def passed(self) -> bool:
        """Whether every planted bug was caught, there was no false alarm, and no unaffected request was named."""
        innocent = not self.alarms and not self.accused
        return bool(self.clean_runs) and innocent and all(row.is_caught for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """The report as result.json has it."""
        return {"passed": self.passed, **asdict(self)}


def is_caught(result: Result) -> bool:
    """Whether the trial has the right verdict for its bug."""
    if result.trial.bug in UNKNOWN_IS_RIGHT:
        return result.verdict is not Verdict.VALID
    return result.verdict is Verdict.INVALID


def make_report(results: Sequence[Result]) -> SelftestReport:
    """The report; its rows are in the order of the table of bugs."""
    clean = [result for result in results if result.trial.bug is None]
    bugs = dict.fromkeys(result.trial.bug for result in results if result.trial.bug is not None)
    alarms = [result for result in clean if result.verdict is not Verdict.VALID]
    met = {result.trial.noise for result in clean}
    return SelftestReport(
        rows=tuple(_row(bug, [r for r in results if r.trial.bug == bug], clean) for bug in bugs),
        noises=tuple(
            _noise_row(noise, [r for r in clean if r.trial.noise == noise]) for noise in KINDS if noise in met
        ),
        clean_requests=sum(result.asked for result in clean),
        clean_runs=len(clean),
        alarms=tuple(map(_alarm, alarms)),
        falsely_named=tuple(_false_names(result) for result in results if result.accused),
        accused=sum(result.accused for result in results),
        flipped=_flipped(clean),
    )


def _flipped(clean: Sequence[Result]) -> float:
    judged = sum(result.outputs.requests for result in clean)
    return sum(result.outputs.tie for result in clean) / max(judged, 1)


def _noise_row(noise: str, clean: Sequence[Result]) -> NoiseRow:
    alarms = sum(result.verdict is not Verdict.VALID for result in clean)
    low, high = clopper_pearson(alarms, len(clean))
    asked = sum(result.asked for result in clean)
    return NoiseRow(noise, len(clean), asked, alarms, low, high, _flipped(clean))


def _row(bug: str, runs: Sequence[Result], clean: Iterable[Result]) -> BugRow:
    load = load_for(bug)
    twins = [result for result in clean if result.trial.load.name == load.name]
    rates = sorted({run.trial.rate for run in runs}, reverse=True)
    needed, at_most = _needed(runs, rates[-1])
    return BugRow(
        bug=bug,
        row=BUGS[bug].row,
        load=load.name,
        caught_by=_catchers(runs),
        rates=tuple(_at_rate(rate, [run for run in runs if run.trial.rate == rate]) for rate in rates),
        wrong=sum(run.wrong for run in runs),
        named=sum(run.named for run in runs),
        needed=needed,
        needed_at_most=at_most,
        clean_runs=len(twins),
        alarms=sum(twin.verdict is not Verdict.VALID for twin in twins),
    )


def _at_rate(rate: float, runs: Sequence[Result]) -> AtRate:
    struck = [run for run in runs if run.struck]
    caught = sum(map(is_caught, struck))
    low, high = clopper_pearson(caught, len(struck))
    return AtRate(round(1 / rate), len(struck), caught, low, high, sum(run.struck for run in struck))


def _needed(runs: Sequence[Result], rate: float) -> tuple[int | None, int | None]:
    power, least = power_per_strike([(run.struck, is_caught(run)) for run in runs])
    # If a bug can strike only some of the requests, the real rate is lower than the nominal one.
    share = sum(run.struck for run in runs) / max(sum(run.trial.rate * run.asked for run in runs), 1e-9)
    return requests_needed(power * rate * share), requests_needed(least * rate * share)


def _catchers(runs: Iterable[Result]) -> tuple[str, ...]:
    """Checks with the same verdict as their run: in an invalid run, an unknown check is only a consequence."""
    times: dict[str, int] = {}
    for run in filter(is_caught, runs):
        for check in run.checks:
            if check.verdict is run.verdict:
                times[check.name] = times.get(check.name, 0) + 1
    return tuple(sorted(times, key=lambda name: -times[name]))


def _alarm(result: Result) -> str:
    reasons = [f"{check.name}: {check.summary}" for check in result.checks if check.verdict is result.verdict]
    return f"{_conditions(result.trial)}: {result.verdict}: {'; '.join(reasons)}"


def _false_names(result: Result) -> str:
    bug = result.trial.bug or "no bug"
    return f"{bug}, load {_conditions(result.trial)}: {result.accused:,} of {result.asked:,} requests"


def _conditions(trial: Trial) -> str:
    return f"{trial.load.name}, noise {trial.noise}, seed {trial.seed}"


def why_missed(row: BugRow) -> str:
    """Why a bug was not caught."""
    if not any(rate.runs for rate in row.rates):
        return f"the bug never struck under the load {row.load!r}"
    return f"these checks should have caught it: {', '.join(sorted(BUGS[row.bug].signs))}"
