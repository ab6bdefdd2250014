"""One stored run as a comparison sees it: small, whatever the run's size. Made from what load_run and result.json hold.

Runs of earlier releases lack some keys of result.json: what is missing is None, and is not compared.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.compare.metrics import LATENCIES, THROUGHPUTS
from harness.compare.settings import settings_of, versions_of
from harness.compare.stored_outputs import StoredOutput, stored_outputs
from harness.facts import Deployment
from harness.history import History, RunStarted
from harness.verdict import FindingKind, Verdict

_WRONG = (FindingKind.WRONG_OUTPUT, FindingKind.LEAK)
_NORMAL_95 = 1.96
"""A 95 % interval has so many standard errors on either side."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    number: int
    of: int

    @property
    def value(self) -> float | None:
        """None if there were none."""
        return self.number / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What is compared of one run."""

    name: str
    """Its directory, for display."""
    began: float
    """Calendar time, seconds since 1970."""
    verdict: Verdict
    seed: int
    settings: Mapping[str, str]
    """What must be alike for runs to be comparable, by name."""
    versions: Mapping[str, str]
    """What may differ: engine, harness, commit."""
    values: Mapping[str, float]
    """Metrics by name."""
    within: Mapping[str, float]
    """Standard error of a metric's logarithm within the run, as far as it is known."""
    shares: Mapping[str, Share]
    """``failed``, ``mismatch``, ``doubtful``."""
    counters: Mapping[str, float]
    """For each completed request, by ``role.counter``."""
    outputs: Mapping[bytes, StoredOutput]
    """By a digest of the request."""
    why_no_latencies: str = ""
    """Why its latencies and rates are not compared; empty if they are."""
    problem: str = ""
    """What is to be said of the run as a whole: interrupted, a process died."""

    @classmethod
    def of(cls, name: str, deployment: Deployment, history: History, result: Mapping[str, Any]) -> "StoredRun":
        """From a run's facts, its history and its result.json. Raises ValueError if the history has no first entry."""
        started = next(history.of(RunStarted), None)
        if started is None:
            raise ValueError("a history without a run_started entry cannot be compared")
        wrong = _found_wrong(result)
        outputs = stored_outputs(history, wrong)
        problem = _problem(history)
        return cls(
            name=name,
            began=started.wall,
            verdict=_verdict(result),
            seed=started.seed,
            settings=settings_of(deployment, history, result),
            versions=versions_of(deployment, started),
            values=_values(result),
            within=_within(result),
            shares=_shares(result, outputs.values()),
            counters=_counters(result),
            outputs=outputs,
            why_no_latencies=problem or _unmeasured(result) or _unhealthy(result),
            problem=problem,
        )


def _verdict(result: Mapping[str, Any]) -> Verdict:
    value = result.get("verdict")
    return Verdict(value) if value in set(Verdict) else Verdict.UNKNOWN


def _problem(history: History) -> str:
    if history.died:
        return "ended by the death of " + ", ".join(one.name for one in history.died)
    return "was interrupted" if history.ended_early else ""


def _unmeasured(result: Mapping[str, Any]) -> str:
    """Whether no request completed: all latencies in result.json are 0 then, which is no good latency."""
    return "completed no request" if _number(result.get("completed")) == 0 else ""


def _unhealthy(result: Mapping[str, Any]) -> str:
    """Whether the client did not keep up, or nobody knows whether it did."""
    verdicts = {check.get("name"): check.get("verdict") for check in result.get("checks") or ()}
    if verdicts.get("client_health") == Verdict.VALID:
        return ""
    return "has no proof that its client kept up (client_health)"


def _number(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and isinstance(value, int | float) else None


def _values(result: Mapping[str, Any]) -> dict[str, float]:
    found = {metric.name: _number(result.get(metric.key)) for metric in (*LATENCIES, *THROUGHPUTS)}
    return {name: value for name, value in found.items() if value is not None}


def _within(result: Mapping[str, Any]) -> dict[str, float]:
    """From the 95 % intervals of the run's own latencies.

    In a closed loop, throughput is the number in flight by the mean latency, so it is as uncertain as that.
    """
    found = {}
    for what, statistics in (result.get("latency_intervals_ms") or {}).items():
        for statistic, ends in statistics.items():
            low, high = map(_number, ends)
            if low and high:
                found[f"{statistic}_{what}"] = (math.log(high) - math.log(low)) / (2 * _NORMAL_95)
    if "mean_e2el" in found:
        found |= dict.fromkeys((metric.name for metric in THROUGHPUTS), found["mean_e2el"])
    return found


def _shares(result: Mapping[str, Any], outputs: Iterable[StoredOutput]) -> dict[str, Share]:
    completed, failed = (int(_number(result.get(key)) or 0) for key in ("completed", "failed"))
    counts = {key: int(_number(value) or 0) for key, value in (result.get("outputs") or {}).items() if key in _COUNTS}
    verified = sum(counts.get(key, 0) for key in ("exact", "tie", "mismatch"))
    return {
        "failed": Share(failed, completed + failed),
        "mismatch": Share(counts.get("mismatch", 0), verified),
        "doubtful": Share(sum(one.doubtful for one in outputs), verified),
    }


_COUNTS = ("exact", "tie", "mismatch")


def _counters(result: Mapping[str, Any]) -> dict[str, float]:
    """Each role's prompt tokens by source, and the bytes of all servers, for each completed request."""
    transfer, completed = result.get("kv_transfer") or {}, _number(result.get("completed"))
    if not completed:
        return {}
    found = {
        f"{role}.{source}": value
        for role in ("prefill", "decode")
        for source, value in (transfer.get(role) or {}).items()
    }
    found["nixl_bytes"] = (transfer.get("nixl_bytes") or {}).get("observed")
    for way, both in (transfer.get("offload_bytes") or {}).items():
        found[f"offload_{way}_bytes"] = (both or {}).get("observed")
    numbers = {name: _number(value) for name, value in found.items()}
    return {name: value / completed for name, value in numbers.items() if value is not None}


def _found_wrong(result: Mapping[str, Any]) -> set[str]:
    findings = (one for check in result.get("checks") or () for one in check.get("findings") or ())
    return {str(one["request"]) for one in findings if one.get("request") and one.get("kind") in _WRONG}
