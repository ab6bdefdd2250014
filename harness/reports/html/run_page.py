"""The page of one run: ``report.html``.

The order follows a reader's questions. Is the deployment right, and if not, why? What was run? Which counters differ?
Were there faults? How fast was it? Which outputs are wrong, and where do they begin to be? Which requests? What do the
checks that passed prove?
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.redact import redact_text
from harness.reports.catalogue import tally
from harness.reports.charts import Chart, charts_of
from harness.reports.counters import CounterRow, comparison_line
from harness.reports.counters import rows as counter_rows
from harness.reports.html import outputs, setup
from harness.reports.html.document import document, render
from harness.reports.html.numbers import ms, nats, share
from harness.reports.html.proves import PROVES
from harness.reports.html.sampled import sampled
from harness.reports.judged import Judged
from harness.reports.requests import RequestRow, request_rows
from harness.reports.text import clean, count, duration, figure, plural, signed
from harness.verdict import Verdict

_MOST_PARTS = 50
"""Comparisons of single phases that are listed below the table of counters."""
_WORST_FIRST = (Verdict.INVALID, Verdict.UNKNOWN, Verdict.VALID)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure at the top of the page."""

    label: str
    figure: str


def run_page(run: Judged) -> str:
    """The whole page, which needs no network."""
    rows = tuple(map(_without_credentials, request_rows(run.deployment, run.history, run.judgement)))
    charts = charts_of(run, rows)
    compared = sorted(counter_rows(run.judgement.comparisons), key=lambda row: _WORST_FIRST.index(row.verdict))
    groups = outputs.output_groups(run.history, rows)
    shown = sampled(rows)
    body = render(
        "run.html",
        run=run,
        overview=run.overview,
        tiles=list(tiles(run)),
        facts=list(setup.facts(run)),
        servers=setup.servers(run.deployment),
        server_columns=setup.SERVER_COLUMNS,
        commands=list(setup.commands(run)),
        counters=list(zip(compared, _remarks(compared), strict=True)),
        counter_filters=list(_filters(compared)),
        shown_ids={one.row.request_id for group in groups for one in group.shown},
        remark=_remark,
        parts=_wrong_parts(compared),
        faults=run.result.get("faults", ()),
        charts=charts,
        groups=groups,
        wrong_by=[
            ("Server pair", outputs.wrong_by_pair(rows)),
            ("First wrong token of the answer", outputs.wrong_by_token(rows)),
            ("First wrong block of the prompt", outputs.wrong_by_block(rows)),
        ],
        requests=shown,
        filters=[(kind, kind.capitalize()) for kind in shown.kinds],
        origin=min((row.due for row in rows), default=0.0),
        passed=[check for check in run.judgement.checks if check.verdict is Verdict.VALID],
        proves=PROVES,
        pair_of=outputs.pair_of,
        clean=clean,
        comparison_line=comparison_line,
        count=count,
        duration=duration,
        ms=ms,
        nats=nats,
        plural=plural,
        share=share,
        signed=signed,
        tally=tally,
    )
    contents = [(name, text) for name, text, there in _sections(run, charts) if there]
    title = f"{run.verdict.upper()}: {run.deployment.model}, {setup.load(run.result)}"
    return document(title, body, charts, subtitle=_subtitle(run), contents=contents)


def tiles(run: Judged) -> Iterator[Tile]:
    """The figures at the top of the page."""
    found, result = run.judgement.outputs, run.result
    verified = found.exact + found.tie + found.mismatch
    yield Tile("requests completed", f"{result['completed']:,}")
    yield Tile("requests failed", f"{result['failed']:,}")
    yield Tile("outputs verified", f"{verified:,}")
    yield Tile("outputs wrong", f"{found.mismatch:,}")
    compared = run.judgement.comparisons
    right = sum(one.verdict is Verdict.VALID for one in compared)
    yield Tile("counters as expected", f"{right:,} of {len(compared):,}")
    yield Tile("output tokens per second", figure(result.get("output_throughput")))


def _sections(run: Judged, charts: Sequence[Chart]) -> Iterator[tuple[str, str, bool]]:
    yield "verdict", "Verdict", True
    yield "workloads", "Workloads", bool(run.rows)
    yield "setup", "What was run", True
    yield "counters", "Counters", bool(run.judgement.comparisons)
    yield "faults", "Faults", bool(run.result.get("faults"))
    yield "charts", "Over time", bool(charts)
    yield "latencies", "Latencies", True
    yield "outputs", "Outputs", True
    yield "requests", "Requests", True
    yield "passed", "What passed", any(check.verdict is Verdict.VALID for check in run.judgement.checks)


def _subtitle(run: Judged) -> str:
    where = "" if run.path is None else f" · {run.path.name}"
    return f"run of {dict(setup.facts(run))['Date']}{where}"


def _without_credentials(row: RequestRow) -> RequestRow:
    """The store removes credentials from what it writes, but this run may not have been read from there."""
    return replace(
        row,
        cause=redact_text(row.cause),
        prefill_server=row.prefill_server and redact_text(row.prefill_server),
        decode_server=row.decode_server and redact_text(row.decode_server),
    )


def _remark(row: RequestRow) -> str:
    """Why the request failed or its output is not known to be right, shortened."""
    return clean(row.cause or row.why, 160)


def _filters(compared: Sequence[CounterRow]) -> Iterator[tuple[str, str]]:
    """The verdicts of counters that occur, and what the table calls them."""
    found = {row.verdict for row in compared}
    names = {Verdict.INVALID: "Differs", Verdict.UNKNOWN: "Unknown", Verdict.VALID: "As expected"}
    yield from ((verdict.value, name) for verdict, name in names.items() if verdict in found)


def _remarks(compared: Sequence[CounterRow]) -> Iterator[str]:
    """Why each counter is not as expected. A long text that was shown before is not shown again."""
    seen: set[str] = set()
    for row in compared:
        note = clean(row.note, None)
        yield "as above" if note in seen else note
        seen |= {note} if note else set()


def _wrong_parts(compared: Sequence[CounterRow]) -> tuple[Sequence[str], int]:
    """The comparisons of single phases that are not valid, and how many more there are."""
    parts = [part for row in compared if len(row.parts) > 1 for part in row.parts if part.verdict is not Verdict.VALID]
    return [comparison_line(part) for part in parts[:_MOST_PARTS]], max(0, len(parts) - _MOST_PARTS)
