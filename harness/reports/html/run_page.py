"""The page of one run: ``report.html``.

The order follows a reader's questions. Is the deployment right, and if not, why? What was run? Which counters differ?
Were there faults? How fast was it? Which outputs are wrong, and where do they begin to be? Which requests? What do the
checks that passed prove?
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.redact import redact_text, redact_url
from harness.reports.catalogue import tally
from harness.reports.charts import Chart, charts_of
from harness.reports.html import outputs, setup, wrong_where
from harness.reports.html.counter_table import counters
from harness.reports.html.document import document, render
from harness.reports.html.numbers import ms, nats
from harness.reports.html.proves import PROVES
from harness.reports.html.sampled import sampled
from harness.reports.judged import Judged
from harness.reports.requests import RequestRow, request_rows
from harness.reports.text import clean, count, duration, figure, plural, signed
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure at the top of the page."""

    label: str
    figure: str


_WORDS = {
    "clean": clean,
    "count": count,
    "duration": duration,
    "ms": ms,
    "nats": nats,
    "pair_of": wrong_where.pair_of,
    "plural": plural,
    "proves": PROVES,
    "signed": signed,
    "tally": tally,
}
"""Functions and texts that the template uses."""


MOST_BYTES = 1_500_000
"""A page of more, as of a run with thousands of wrong outputs, shows fewer requests and outputs, and says so."""
_SHARES = (1.0, 0.5, 0.25, 0.1)
"""Of the requests and outputs that a page shows at most. With the last, a page is as small as it gets."""


def run_page(run: Judged) -> str:
    """The whole page, which needs no network."""
    rows = tuple(map(_without_credentials, request_rows(run.deployment, run.history, run.judgement)))
    charts, groups = charts_of(run, rows), outputs.output_groups(run.history, rows)
    fixed = {**_WORDS, **_about(run), **counters(run.judgement), "charts": charts}
    contents = [(name, text) for name, text, there in _sections(run, charts) if there]
    title = f"{run.verdict.upper()}: {run.deployment.model}, {setup.load(run)}"
    page = ""
    for share in _SHARES:
        body = render("run.html", **fixed, **_of_requests(rows, groups, share))
        page = document(title, body, charts, subtitle=_subtitle(run), contents=contents)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


def _about(run: Judged) -> dict[str, Any]:
    return {
        "run": run,
        "overview": run.overview,
        "tiles": list(tiles(run)),
        "facts": list(setup.facts(run)),
        "servers": setup.servers(run.deployment),
        "server_columns": setup.SERVER_COLUMNS,
        "commands": list(setup.commands(run)),
        "faults": run.result.get("faults", ()),
        "passed": [check for check in run.judgement.checks if check.verdict is Verdict.VALID],
    }


def _of_requests(rows: Sequence[RequestRow], found: Sequence[outputs.OutputGroup], share: float) -> dict[str, Any]:
    groups, shown = [group.shortened(share) for group in found], sampled(rows, share)
    return {
        "groups": groups,
        "wrong_by": [
            ("Server pair", wrong_where.wrong_by_pair(rows)),
            ("First wrong token of the answer", wrong_where.wrong_by_token(rows)),
            ("First wrong block of the prompt", wrong_where.wrong_by_block(rows)),
        ],
        "requests": shown,
        "shown_ids": {one.row.request_id for group in groups for one in group.shown},
        "filters": [(kind, kind.capitalize()) for kind in shown.kinds],
        "origin": min((row.due for row in rows), default=0.0),
        "remark": _remark,
    }


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
    """The store removes credentials from what it writes, but this run may not have been read from there.

    Most rows have no text in which there could be one: they stay the same objects.
    """
    one, other = row.prefill_server, row.decode_server
    if not row.cause and "/" not in f"{one}{other}":
        return row
    return replace(
        row,
        cause=redact_text(row.cause),
        prefill_server=one and redact_url(one),
        decode_server=other and redact_url(other),
    )


def _remark(row: RequestRow) -> str:
    """Why the request failed or its output is not known to be right, shortened."""
    return clean(row.cause or row.why, 160)
