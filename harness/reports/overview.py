"""What a person is told about a run, before it is laid out for a terminal or as plain lines.

The order is the order of a tired reader's questions: is it right, if not why, where did the counters differ,
were the outputs right, how fast was it, what was it run on, where is it stored, how is it done again.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.facts import Deployment, Role, Server, alike
from harness.history import History, RunStarted
from harness.load.latency import LatencyReport
from harness.load.latency import Summary as Distribution
from harness.reports.catalogue import Row, overall, tally
from harness.reports.counters import CounterRow
from harness.reports.counters import rows as counter_rows
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
    """One for each text, with all the subjects that it is about; not what the summary has told already."""
    more: int
    """Findings that are not shown."""
    advice: str = ""
    """One likely cause, and what to do."""
    aside: str = ""
    """Why it does not count for the verdict; empty where it does."""

    @property
    def word(self) -> str:
        """The verdict, as it is shown."""
        return self.aside.upper() or self.verdict.upper()


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One latency, in milliseconds, formatted: mean, p50, p90, p99."""

    name: str
    values: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is shown; every text is clean of control characters."""

    verdict: Verdict
    headline: str
    reasons: tuple[Reason, ...]
    passed: tuple[tuple[str, str], ...]
    """Name and summary of each valid check."""
    counters: tuple[CounterRow, ...]
    """Where tokens came from and bytes went, and whatever else is not as expected."""
    remarks: tuple[str, ...]
    """Why each of these is not as expected, where no reason or remark above has told it; parallel to ``counters``."""
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


def make_overview(  # noqa: PLR0913 - what was run and how it was judged; the last two have defaults
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    latency: LatencyReport,
    *,
    run_dir: Path | None = None,
    rows: Sequence[Row] = (),
) -> Overview:
    """Gather what will be shown; ``run_dir`` is where the run is stored, None if nowhere.

    ``rows``: of the catalogue's workloads, where the run was of these.
    """
    compared = counter_rows(judgement.comparisons)
    shown = _ordered(
        [one for one in compared if one.counter in HEADLINE or one.verdict is not Verdict.VALID], deployment
    )
    reasons = _reasons(judgement.checks, _asides(judgement, rows))
    return Overview(
        verdict=overall(rows) if rows else judgement.verdict,
        headline=_headline(tally(rows) if rows else _checked(judgement), interrupted=history.ended_early),
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
        latencies=_latencies(latency),
        throughput=_throughput(latency),
        deployment=_deployment(deployment),
        stored="" if run_dir is None else str(run_dir),
        again=_again(run_started(history)),
    )


def _notes(judgement: Judgement, history: History) -> tuple[str, ...]:
    told = [note for check in judgement.checks for note in check.notes]
    return tuple(clean(note, None) for note in (*told, verification_cost(history).text) if note)


def _ordered(shown: list[CounterRow], deployment: Deployment) -> tuple[CounterRow, ...]:
    """Servers as the deployment names them, roles after them; tokens before bytes before the rest."""
    servers = {server.name: place for place, server in enumerate(deployment.servers)}
    counters = {counter: place for place, counter in enumerate(HEADLINE)}

    def place(row: CounterRow) -> tuple[int, str, int]:
        return servers.get(row.server, len(servers)), row.server, counters.get(row.counter, len(counters))

    return tuple(sorted(shown, key=place))


def _headline(text: str, *, interrupted: bool) -> str:
    return f"{text}; the run was interrupted" if interrupted else text


def _checked(judgement: Judgement) -> str:
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


def _asides(judgement: Judgement, rows: Sequence[Row]) -> Mapping[str, str]:
    """Checks of the whole run that count in no row of the table, by name, and why they do not."""
    counted = {check.name for row in rows if not row.excused for check in _bad(row.judgement)}
    known = {check.name for row in rows if row.excused for check in _bad(row.judgement)}
    aside = {check.name for check in _bad(judgement)} - counted if rows else set()
    return {name: "known fault" if name in known else "not counted" for name in aside}


def _bad(judgement: Judgement | None) -> Sequence[Check]:
    return () if judgement is None else [one for one in judgement.checks if one.verdict is not Verdict.VALID]


def _reasons(checks: Sequence[Check], asides: Mapping[str, str]) -> tuple[Reason, ...]:
    """What failed, then what is unknown, what does not count last; within each in the order in which the checks ran."""
    reasons: list[Reason] = []
    told: dict[str, str] = {}
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        for check in checks:
            if check.verdict is verdict:
                reasons.append(_set_aside(_reason(check, told), asides.get(check.name, "")))
                for why in _whys(check):
                    told.setdefault(why, check.name)
    return tuple(sorted(reasons, key=lambda reason: bool(reason.aside)))


def _set_aside(reason: Reason, aside: str) -> Reason:
    """Of what does not count nothing need be done."""
    return replace(reason, aside=aside, advice="") if aside else reason


def _whys(check: Check) -> set[str]:
    """Why comparisons could not be made, in words."""
    return {clean(part.why_unknown, None) for part in check.comparisons if part.verdict is Verdict.UNKNOWN} - {""}


def _reason(check: Check, told: Mapping[str, str]) -> Reason:
    """One check; what an earlier one has told (text to its name) is referred to."""
    summary = clean(check.summary, None)
    for why in sorted(_whys(check) & set(told), key=len, reverse=True):
        summary = summary.replace(why, f"for the same reason as {told[why]}")
    findings = _by_text(check.findings, summary)
    shown = tuple(_shown(one) for one in findings[:MOST_FINDINGS])
    more = sum(len(one.subjects) for one in findings[MOST_FINDINGS:])
    advice = clean(str(check.advice), None) if check.advice else ""
    return Reason(check.verdict, check.name, summary, shown, more, advice)


@dataclass(frozen=True, slots=True)
class _Told:
    """One text of findings, and whom it is about."""

    text: str
    subjects: tuple[str, ...]


def _by_text(findings: Sequence[Finding], summary: str) -> list[_Told]:
    """Findings of one text together; without the subject for which the summary has told it."""
    subjects: dict[str, list[str]] = {}
    for finding in findings:
        subjects.setdefault(clean(finding.text, None), []).append(clean(finding.subject, 60))
    told = []
    for text, about in subjects.items():
        if text not in summary:
            told.append(_Told(text, tuple(about)))
        elif others := [subject for subject in dict.fromkeys(about) if subject not in summary]:
            told.append(_Told("the same", tuple(others)))
    return told


def _shown(told: _Told) -> Finding:
    named, more = told.subjects[:MOST_FINDINGS], len(told.subjects) - MOST_FINDINGS
    return Finding(", ".join(named) + (f" and {more:,} more" if more > 0 else ""), told.text)


def _remarks(shown: Sequence[CounterRow], reasons: Sequence[Reason]) -> tuple[str, ...]:
    """Each counter's note, unless it stands above it."""
    told = [reason.summary for reason in reasons]
    remarks = []
    for note in (clean(row.note, None) for row in shown):
        remarks.append("" if any(note in text for text in told) else note)
        told.append(note)
    return tuple(remarks)


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
