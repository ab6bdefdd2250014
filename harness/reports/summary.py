"""What a person is told about a run, before it is laid out for a terminal or as plain lines.

The order is the order of a tired reader's questions: is it right, if not why, where did the counters differ,
were the outputs right, how fast was it, what was it run on, where is it stored, how is it done again.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.facts import Deployment, Role, Server, alike
from harness.history import History, RunStarted
from harness.load.latency import LatencyReport
from harness.load.latency import Summary as Distribution
from harness.reports.counters import CounterRow, rows
from harness.reports.kv_transfer import TOKEN_SOURCES
from harness.reports.measured import run_started
from harness.reports.text import clean, duration, figure, plural
from harness.reports.verification_cost import verification_cost
from harness.store.redact import redact_argv
from harness.verdict import Check, Finding, Judgement, Outputs, Verdict

MOST_FINDINGS = 3
"""Findings shown of one check."""

HEADLINE = (*TOKEN_SOURCES, "nixl_bytes", "offload_load_bytes", "offload_store_bytes")
"""Counters that are shown also when they are as expected."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One check that is not valid."""

    verdict: Verdict
    name: str
    summary: str
    findings: tuple[Finding, ...]
    more: int
    """Findings that are not shown."""


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One latency, in milliseconds, formatted: mean, p50, p90, p99."""

    name: str
    values: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that is shown; every text is clean of control characters."""

    verdict: Verdict
    headline: str
    reasons: tuple[Reason, ...]
    passed: tuple[tuple[str, str], ...]
    """Name and summary of each valid check."""
    counters: tuple[CounterRow, ...]
    """Where tokens came from and bytes went, and whatever else is not as expected."""
    further: int
    """Counters compared, as expected, and not shown."""
    outputs: str
    outputs_wrong: bool
    notes: tuple[str, ...]
    """How much was looked at, a line each."""
    latencies: tuple[LatencyRow, ...]
    throughput: str
    deployment: str
    stored: str
    again: str


def summarize(
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    latency: LatencyReport,
    *,
    run_dir: Path | None = None,
) -> Summary:
    """Gather what will be shown; ``run_dir`` is where the run is stored, None if nowhere."""
    compared = rows(judgement.comparisons)
    shown = [row for row in compared if row.counter in HEADLINE or row.verdict is not Verdict.VALID]
    return Summary(
        verdict=judgement.verdict,
        headline=_headline(judgement, interrupted=history.interrupted),
        reasons=_reasons(judgement.checks),
        passed=tuple(
            (check.name, clean(check.summary)) for check in judgement.checks if check.verdict is Verdict.VALID
        ),
        counters=_ordered(shown, deployment),
        further=len(compared) - len(shown),
        outputs=_outputs(judgement.outputs),
        outputs_wrong=judgement.outputs.mismatch > 0,
        notes=_notes(judgement, history),
        latencies=_latencies(latency),
        throughput=_throughput(latency),
        deployment=_deployment(deployment),
        stored="" if run_dir is None else str(run_dir),
        again=_again(run_started(history)),
    )


def _notes(judgement: Judgement, history: History) -> tuple[str, ...]:
    told = [note for check in judgement.checks for note in check.notes]
    return tuple(clean(note) for note in (*told, verification_cost(history).text) if note)


def _ordered(shown: list[CounterRow], deployment: Deployment) -> tuple[CounterRow, ...]:
    """Servers as the deployment names them, roles after them; tokens before bytes before the rest."""
    servers = {server.name: place for place, server in enumerate(deployment.servers)}
    counters = {counter: place for place, counter in enumerate(HEADLINE)}

    def place(row: CounterRow) -> tuple[int, str, int]:
        return servers.get(row.server, len(servers)), row.server, counters.get(row.counter, len(counters))

    return tuple(sorted(shown, key=place))


def _headline(judgement: Judgement, *, interrupted: bool) -> str:
    text = _tally([check.verdict for check in judgement.checks])
    return f"{text}; the run was interrupted" if interrupted else text


def _tally(verdicts: Sequence[Verdict]) -> str:
    invalid, unknown = verdicts.count(Verdict.INVALID), verdicts.count(Verdict.UNKNOWN)
    if not verdicts:
        return "nothing was checked"
    if not invalid and not unknown:
        return f"all {plural(len(verdicts), 'check')} passed"
    whole = plural(len(verdicts), "check")
    if not invalid:
        return f"{unknown} of {whole} could not be judged"
    return f"{invalid} of {whole} failed" + (f", {unknown} could not be judged" if unknown else "")


def _reasons(checks: Sequence[Check]) -> tuple[Reason, ...]:
    """What failed, then what is unknown; within each in the order in which the checks ran."""
    return tuple(
        _reason(check) for verdict in (Verdict.INVALID, Verdict.UNKNOWN) for check in checks if check.verdict is verdict
    )


def _reason(check: Check) -> Reason:
    shown = tuple(Finding(clean(f.subject, 60), clean(f.text)) for f in check.findings[:MOST_FINDINGS])
    return Reason(check.verdict, check.name, clean(check.summary), shown, len(check.findings) - len(shown))


def _outputs(outputs: Outputs) -> str:
    if outputs.requests == 0:
        return "none compared"
    return (
        f"{outputs.requests:,} compared: {outputs.exact:,} exact, {outputs.tie:,} tie, "
        f"{outputs.mismatch:,} mismatch, {outputs.unverified:,} unverified"
    )


def _latencies(latency: LatencyReport) -> tuple[LatencyRow, ...]:
    named = {"TTFT": latency.ttft, "ITL": latency.itl, "TPOT": latency.tpot, "E2E": latency.e2el}
    return tuple(LatencyRow(name, _statistics(values)) for name, values in named.items())


def _statistics(values: Distribution | None) -> tuple[str, str, str, str]:
    if values is None:
        return ("-", "-", "-", "-")
    return (figure(values.mean), figure(values.p50), figure(values.p90), figure(values.p99))


def _throughput(latency: LatencyReport) -> str:
    return (
        f"{figure(latency.request_throughput)} requests/s, {figure(latency.output_throughput)} output tokens/s "
        f"({figure(latency.total_token_throughput)} with prompts); {latency.completed:,} completed, "
        f"{latency.failed:,} failed in {duration(latency.duration)}"
    )


def _deployment(deployment: Deployment) -> str:
    versions = alike(server.version for server in deployment.servers)
    parts = [
        f"{deployment.engine} {versions} on {deployment.device or 'an unknown device'}",
        f"{len(deployment.of(Role.PREFILL))} prefill + {len(deployment.of(Role.DECODE))} decode, "
        + ("launched" if deployment.launched else "attached"),
        alike(map(_connectors, deployment.servers)),
        f"block size {alike(server.block_size for server in deployment.servers)}",
        f"model {deployment.model}",
    ]
    return clean("; ".join(parts), None)


def _connectors(server: Server) -> str:
    names = server.connector_names
    if names is None:
        return "connector unknown"
    return f"MultiConnector[{', '.join(names)}]" if len(names) > 1 else f"connector {''.join(names) or 'none'}"


def _again(started: RunStarted) -> str:
    seed = () if any(a == "--seed" or a.startswith("--seed=") for a in started.argv) else ("--seed", str(started.seed))
    return clean(shlex.join(["python", "-m", "harness", *redact_argv(started.argv), *seed]), None)
