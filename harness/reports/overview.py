"""The overview of a run that a user sees, before it is laid out for a terminal or as plain lines.

The order follows a reader's questions: Is the deployment right? If not, why? Which counters differ? Are the outputs
right? How fast was the run? What did it run on? Where is it stored? How can it be repeated?
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.checkers.token_sources import SOURCES
from harness.facts import Deployment, Role, Server, alike
from harness.history import History, RunStarted
from harness.load.goodput import Goodput
from harness.load.latency import LatencyDetail, LatencyReport
from harness.reports.catalogue import Row, overall, tally
from harness.reports.counters import CounterRow
from harness.reports.counters import rows as counter_rows
from harness.reports.faults import fault_lines
from harness.reports.goodput import goodput_line
from harness.reports.latency_rows import LatencyRow, latency_rows, shares_line, steady_line
from harness.reports.measured import run_started
from harness.reports.reasons import Reason, ignored_checks, reasons_of
from harness.reports.text import clean, duration, figure, plural
from harness.reports.verification_cost import verification_cost
from harness.store.redact import redact_argv
from harness.verdict import Judgement, Outputs, Verdict

HEADLINE = (*SOURCES, "nixl_bytes", "offload_load_bytes", "offload_store_bytes")
"""Counters that are shown even if they are as expected."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is shown. No text contains control characters."""

    verdict: Verdict
    headline: str
    reasons: tuple[Reason, ...]
    passed: tuple[tuple[str, str], ...]
    """Name and summary of each valid check."""
    counters: tuple[CounterRow, ...]
    """The counters of ``HEADLINE``, and all that are not as expected."""
    remarks: tuple[str, ...]
    """Why each of ``counters`` is not as expected; empty if a reason or remark above it has the same text."""
    further: int
    """Number of other counters, all as expected."""
    outputs: str
    outputs_wrong: bool
    notes: tuple[str, ...]
    """How much was checked, a line each."""
    faults: tuple[str, ...]
    """The faults of the run, a line each."""
    latencies: tuple[LatencyRow, ...]
    shares: str
    """Who took how much of the time to first token; empty if it is not known."""
    steady: str
    """The load without its warm-up; empty if no steady state was seen."""
    throughput: str
    goodput: str
    """Empty if no objectives were given."""
    deployment: str
    stored: str
    again: str


def make_overview(  # noqa: PLR0913 - the last three have defaults
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    latency: LatencyReport,
    detail: LatencyDetail,
    *,
    run_dir: Path | None = None,
    rows: Sequence[Row] = (),
    good: Goodput | None = None,
) -> Overview:
    """Collect everything that is shown.

    ``run_dir``: where the run is stored; None: it is not stored. ``rows``: the catalogue's table, if workloads ran.
    """
    compared = counter_rows(judgement.comparisons)
    shown = _ordered(
        [one for one in compared if one.counter in HEADLINE or one.verdict is not Verdict.VALID], deployment
    )
    reasons = reasons_of(judgement.checks, ignored_checks(judgement, rows))
    return Overview(
        verdict=overall(rows) if rows else judgement.verdict,
        headline=(tally(rows) if rows else _tally(judgement))
        + ("; the run ended early" if history.ended_early else ""),
        reasons=reasons,
        passed=tuple(
            (check.name, clean(check.summary, None)) for check in judgement.checks if check.verdict is Verdict.VALID
        ),
        counters=shown,
        remarks=_remarks(shown, reasons),
        further=len(compared) - len(shown),
        outputs=_outputs(judgement.outputs),
        outputs_wrong=judgement.outputs.mismatch > 0,
        notes=_notes(judgement, history),
        faults=tuple(fault_lines(history)),
        latencies=latency_rows(latency, detail),
        shares=shares_line(detail),
        steady=steady_line(detail),
        throughput=_throughput(latency),
        goodput="" if good is None else goodput_line(good),
        deployment=_deployment(deployment),
        stored="" if run_dir is None else str(run_dir),
        again=_again(run_started(history)),
    )


def _notes(judgement: Judgement, history: History) -> tuple[str, ...]:
    notes = [note for check in judgement.checks for note in check.notes]
    return tuple(clean(note, None) for note in (*notes, verification_cost(history).text) if note)


def _ordered(shown: list[CounterRow], deployment: Deployment) -> tuple[CounterRow, ...]:
    """Servers in the deployment's order, then roles; for each, tokens, then bytes, then other counters."""
    servers = {server.name: place for place, server in enumerate(deployment.servers)}
    counters = {counter: place for place, counter in enumerate(HEADLINE)}

    def place(row: CounterRow) -> tuple[int, str, int]:
        return servers.get(row.server, len(servers)), row.server, counters.get(row.counter, len(counters))

    return tuple(sorted(shown, key=place))


def _tally(judgement: Judgement) -> str:
    verdicts = [check.verdict for check in judgement.checks]
    invalid, unknown = verdicts.count(Verdict.INVALID), verdicts.count(Verdict.UNKNOWN)
    if not verdicts:
        return "nothing was checked"
    if not invalid and not unknown:
        return f"all {plural(len(verdicts), 'check')} passed"
    whole = plural(len(verdicts), "check")
    if not invalid:
        return f"{unknown} of {whole} could not be judged"
    return f"{invalid} of {whole} failed" + (f", {unknown} could not be judged" if unknown else "")


def _remarks(shown: Sequence[CounterRow], reasons: Sequence[Reason]) -> tuple[str, ...]:
    """Each counter's note; empty if a reason or a note above it contains the same text."""
    above = [reason.summary for reason in reasons]
    remarks = []
    for note in (clean(row.note, None) for row in shown):
        remarks.append("" if any(note in text for text in above) else note)
        above.append(note)
    return tuple(remarks)


def _outputs(outputs: Outputs) -> str:
    if outputs.requests == 0:
        return "none compared"
    return (
        f"{outputs.requests:,} compared: {outputs.exact:,} exact, {outputs.tie:,} tie, "
        f"{outputs.mismatch:,} mismatch, {outputs.unverified:,} unverified"
    )


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
