"""Sends the parts of a soak to one deployment, verifies each, and measures the deployment after each."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import harness
from bench.soak_sample import Sample, sample
from harness.api.opening import Opening
from harness.facts import Role
from harness.history import History
from harness.reports import Report
from harness.verdict import Check, Comparison, Verdict

_SETTLE_SECONDS = {"vllm": 60.0, "sim": 10.0}
"""Longer than the lease of 30 s after which P releases blocks whose transfer was lost; a simulated pair loses none."""
_INPUT_LEN, _OUTPUT_LEN = (20, 200), 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent to one deployment."""

    engine: str
    size: int
    """Requests of a part."""
    parts: int
    concurrency: int
    verify: str
    seed: int
    """Of the first part; each later part has the next one."""
    out: Path
    settle_seconds: float | None = None
    name: str = ""
    """What its lines begin with, if several deployments are loaded at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part's result."""

    requests: int
    judged: int
    """Outputs that were compared with teacher forcing."""
    transfers: int
    """Reads that the decode servers counted for the load, where they counted as many as predicted."""
    external_tokens: int
    """Prompt tokens that the decode servers took from transfers, counted likewise."""
    verdict: Verdict
    bad: str = ""
    """Checks that are not valid, with their summaries."""

    @property
    def verified(self) -> int:
        """Transfers that were counted as predicted, as were their tokens, and whose outputs were judged."""
        return min(self.requests, self.judged, self.transfers) if self.external_tokens else 0


@dataclass(frozen=True, slots=True)
class Soaked:
    """All parts of one deployment, and the measurements before the first and after each."""

    parts: tuple[Part, ...]
    samples: tuple[Sample, ...]


def soaked(plan: Plan) -> Soaked:
    """Open a deployment and send it all parts; prints a line for each."""
    parts: list[Part] = []
    with _opening(plan) as deployment:
        samples = [sample(deployment, 0)]
        for number in range(plan.parts):
            parts.append(_sent(deployment, plan, number))
            gc.collect()
            samples.append(sample(deployment, (number + 1) * plan.size))
            print(_line(plan, parts[-1], samples[-1]), flush=True)
    return Soaked(tuple(parts), tuple(samples))


def _opening(plan: Plan) -> Opening:
    if plan.engine == "sim":
        return harness.simulate(separate_processes=True)
    return harness.launch(log_dir=plan.out / "servers")


def _sent(deployment: harness.RunningDeployment, plan: Plan, number: int) -> Part:
    load = harness.RandomLoad(
        num_prompts=plan.size,
        concurrency=plan.concurrency,
        seed=plan.seed + number,
        input_len=_INPUT_LEN,
        output_len=_OUTPUT_LEN,
    )
    settle = _SETTLE_SECONDS[plan.engine] if plan.settle_seconds is None else plan.settle_seconds
    return part_of(deployment.run(load, verify=plan.verify, settle_timeout=settle))


def part_of(report: Report) -> Part:
    """What a run shows of its load's transfers."""
    outputs = report.outputs
    return Part(
        requests=sum(1 for one in report.history.operations() if one.request.of_load),
        judged=outputs.exact + outputs.tie + outputs.mismatch,
        transfers=_counted(report, "nixl_transfers"),
        external_tokens=_counted(report, "external_kv_transfer"),
        verdict=report.verdict,
        bad="; ".join(f"{one.name}: {one.summary}" for one in report.checks if one.verdict is not Verdict.VALID),
    )


def _counted(report: Report, counter: str) -> int:
    """The growth of a counter of the decode servers over the load; 0 where it is not as predicted."""
    loads = _load_phases(report.history)
    ranks = {one.name: one.ranks or 1 for one in report.deployment.servers if one.role is Role.DECODE}
    found = (one for one in _comparisons(report.checks) if one.counter == counter)
    counted = (one for one in found if (one.scenario, one.phase) in loads and one.verdict is Verdict.VALID)
    observed = ((one.server, int(one.observed or 0)) for one in counted if one.server in ranks)
    # A request is read once by each rank.
    return sum(value // (ranks[name] if counter == "nixl_transfers" else 1) for name, value in observed)


def _comparisons(checks: tuple[Check, ...]) -> Iterator[Comparison]:
    return (one for check in checks for one in check.comparisons)


def _load_phases(history: History) -> set[tuple[str, str]]:
    return {(one.sent.scenario, one.sent.phase) for one in history.operations() if one.request.of_load}


def _line(plan: Plan, part: Part, after: Sample) -> str:
    counts = f"{part.verified:,}/{part.requests:,} transfers verified, {part.external_tokens:,} external tokens"
    return f"{plan.name}{after.requests:,} requests: {part.verdict}, {counts}; {after.text}. {part.bad}".rstrip()
