"""The page of a run: what stands on it, in which order, and what is said to be left out."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import run_fixtures as made
from virtual_run import virtual_report

from harness.history import Choice, Ended, Ending, History, Outcome, Sent
from harness.reports import LoadSettings, Report, make_report
from harness.reports.catalogue import Row
from harness.reports.html import run_page
from harness.reports.html import sampled as sampling
from harness.reports.html.proves import PROVES
from harness.reports.html.sampled import kind_of, sampled
from harness.reports.html.wrong_where import wrong_by_block, wrong_by_pair, wrong_by_token
from harness.reports.requests import OutputStatus, RequestRow, request_rows
from harness.sim import PlantedBug
from harness.verdict import Verdict

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Text(HTMLParser):
    """The text that a reader sees, and the names of elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.text = ""
        self.marked: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:
            self.text += data
            if self.tags and self.tags[-1] == "mark":
                self.marked.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")


@pytest.fixture(scope="module")
def wrong() -> Report:
    """A run of 40 requests, of which some lack the last block of their prompt's KV."""
    return virtual_report(40, bugs=[PlantedBug("stale_tail", 0.2)], policy="all")


@pytest.fixture(scope="module")
def page(wrong: Report) -> Text:
    return Text(wrong.html())


def test_sections_stand_in_the_order_of_a_readers_questions(page: Text) -> None:
    ids = [str(one["id"]) for one in page.attributes if one.get("id")]
    wanted = ["verdict", "setup", "counters", "charts", "latencies", "outputs", "requests", "passed"]
    assert [name for name in ids if name in wanted] == wanted


def test_the_verdict_and_each_reason_are_on_the_page(wrong: Report, page: Text) -> None:
    assert wrong.verdict is Verdict.INVALID
    assert "INVALID" in page.text
    for reason in wrong.overview.reasons:
        assert reason.summary in page.text
        assert reason.advice in page.text
    assert wrong.overview.again in page.text


def test_every_counter_of_every_server_is_on_the_page_and_wrong_ones_come_first(wrong: Report) -> None:
    table = wrong.html().partition('id="counter-table"')[2].partition("</table>")[0]
    pattern = r'<tr data-kind="(\w+)".*?<td class="nowrap">([^<]+)</td><th scope="row">([^<]+)'
    rows = [tuple(map(unescape, found)) for found in re.findall(pattern, table, re.DOTALL)]
    assert {(server, counter) for _, server, counter in rows} == {
        (one.server, one.counter) for one in wrong.judgement.comparisons
    }
    verdicts = [verdict for verdict, _, _ in rows]
    assert verdicts[0] == "invalid"
    assert verdicts == sorted(verdicts, key=["invalid", "unknown", "valid"].index)


def test_each_wrong_output_is_shown_with_the_words_around_its_first_wrong_token(wrong: Report, page: Text) -> None:
    rows = request_rows(wrong.deployment, wrong.history, wrong.judgement)
    bad = [row for row in rows if row.output is OutputStatus.WRONG]
    assert len(bad) == wrong.outputs.mismatch > 0
    operations = {o.request.request_id: o for o in wrong.history.operations()}
    for row in bad:
        assert f"output-{row.request_id}" in [one.get("id") for one in page.attributes]
        assert row.token is not None
        # A word of the simulated pair is spelled like its token id. A token that no server spelled is shown by its id.
        token = operations[row.request_id].ended.choices[0].token_ids[row.token]
        assert {f"w{token}", f"⟨{token}⟩"} & set(page.marked)


def test_texts_of_servers_and_users_are_texts() -> None:
    entries = [
        replace(one, cause=f"500: {HOSTILE}", outcome=Outcome.INFO, ending=Ending.REFUSED)
        if isinstance(one, Ended) and one.request_id == "load-1"
        else replace(one, choices=(Choice((5, 6, 7), HOSTILE, "length"),), prefill_server=f"http://{HOSTILE}")
        if isinstance(one, Ended)
        else replace(one, argv=("--label", HOSTILE), scenarios=(HOSTILE,))
        if one is made.STARTED
        else one
        for one in made.entries()
    ]
    deployment = replace(made.DEPLOYMENT, model=HOSTILE).with_servers(version=HOSTILE)
    judgement = made.INVALID
    checks = tuple(replace(check, summary=f"{check.summary} {HOSTILE}") for check in judgement.checks)
    judgement = replace(judgement, checks=checks)
    shown = Text(make_report(deployment, History(tuple(entries)), judgement, Path(HOSTILE)).html())
    assert "img" not in shown.tags
    assert shown.text.count(HOSTILE) > len(checks)
    assert not any(name.startswith("on") for one in shown.attributes for name in one)


def test_no_credential_is_on_the_page() -> None:
    entries = [
        replace(one, cause="500: Authorization: Bearer sesame", outcome=Outcome.INFO, ending=Ending.REFUSED)
        if isinstance(one, Ended)
        else one
        for one in made.entries()
    ]
    deployment = replace(made.DEPLOYMENT, proxy_url="http://me:sesame@127.0.0.1:8000")
    servers = tuple(replace(one, url="http://me:sesame@127.0.0.1:8100") for one in deployment.servers)
    report = make_report(replace(deployment, servers=servers), History(tuple(entries)), made.INVALID)
    assert "127.0.0.1:8100" in report.html()
    assert "sesame" not in report.html()


def _row(number: int, output: OutputStatus, **fields: object) -> RequestRow:
    row = request_rows(made.DEPLOYMENT, History(made.entries()), made.INVALID)[0]
    return replace(row, request_id=f"load-{number}", output=output, **fields)  # type: ignore[arg-type]


def test_of_many_requests_all_notable_ones_and_an_even_sample_are_shown() -> None:
    rows = [_row(number, OutputStatus.NOT_SAMPLED) for number in range(50_000)]
    rows[49_000] = _row(49_000, OutputStatus.WRONG)
    rows[100] = _row(100, OutputStatus.DOUBTFUL)
    rows[200] = _row(200, OutputStatus.NONE, outcome=Outcome.FAIL)
    shown = sampled(rows)
    assert [(kind, row.request_id) for kind, row in shown.rows[:3]] == [
        ("wrong", "load-49000"),
        ("doubtful", "load-100"),
        ("failed", "load-200"),
    ]
    assert (shown.total, shown.notable, shown.notable_shown) == (50_000, 3, 3)
    others = [int(row.request_id.removeprefix("load-")) for _, row in shown.rows[3:]]
    assert 500 < len(others) <= sampling.MOST_OTHERS
    gaps = {after - before for before, after in pairwise(others)}
    assert max(gaps) - min(gaps) <= 2


def test_a_wrong_output_of_a_request_that_failed_is_wrong() -> None:
    assert kind_of(_row(1, OutputStatus.WRONG, outcome=Outcome.INFO)) == "wrong"
    assert kind_of(_row(1, OutputStatus.RIGHT, outcome=Outcome.INFO)) == "failed"


def test_a_sampled_page_says_so() -> None:
    sent, ended = made.entries()[2], made.entries()[4]
    assert isinstance(sent, Sent)
    assert isinstance(ended, Ended)
    many = [
        part
        for number in range(sampling.MOST_OTHERS + 500)
        for part in (
            replace(sent, request=replace(sent.request, request_id=f"load-{number}")),
            replace(ended, request_id=f"load-{number}"),
        )
    ]
    report = make_report(made.DEPLOYMENT, History((made.STARTED, *many)), made.INVALID)
    assert "750 of 1,500 requests are shown" in Text(report.html()).text


def test_a_page_that_would_be_too_large_shows_fewer_outputs_and_requests_and_says_so(
    wrong: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wrong.html()
    monkeypatch.setattr(run_page, "MOST_BYTES", len(whole.encode()) - 1)
    smaller = wrong.html()
    assert len(smaller.encode()) < len(whole.encode())
    count = whole.count('<details class="card output"')
    assert count >= 4
    assert smaller.count('<details class="card output"') == count // 2
    assert f"The first {count // 2} of {count} are shown." in Text(smaller).text


def test_the_load_is_what_was_sent_and_not_what_was_asked_for() -> None:
    """A run that was interrupted, or has a limit of time, sends less; workloads do not look at the load's flags."""
    asked = LoadSettings(3000, max_concurrency=32)
    report = make_report(made.DEPLOYMENT, made.HISTORY, made.INVALID, None, asked)
    assert "2 requests, at most 32 at a time" in Text(report.html()).text
    assert "3,000" not in report.html()
    row = Row("a_case", "cases", "as given", made.INVALID, requests=2)
    report = make_report(made.DEPLOYMENT, made.HISTORY, made.INVALID, None, asked, rows=[row])
    assert "2 requests, sent and answered in" in Text(report.html()).text


def test_wrong_outputs_are_counted_by_pair_token_and_block() -> None:
    rows = [
        _row(1, OutputStatus.WRONG, token=0, block=1),
        _row(2, OutputStatus.WRONG, token=5, block=3),
        _row(3, OutputStatus.WRONG, token=None, block=None),
        _row(4, OutputStatus.RIGHT),
        _row(5, OutputStatus.RIGHT, decode_server="decode-1"),
        _row(6, OutputStatus.NOT_SAMPLED),
    ]
    assert [(one.name, one.wrong, one.of) for one in wrong_by_pair(rows)] == [
        ("prefill-0 → decode-0", 3, 4),
        ("prefill-0 → decode-1", 0, 1),
    ]
    assert [(one.name, one.wrong) for one in wrong_by_token(rows)] == [
        ("token 0", 1),
        ("tokens 4 to 7", 1),
        ("no single token is known", 1),
    ]
    assert [(one.name, one.wrong) for one in wrong_by_block(rows)] == [
        ("block 1", 1),
        ("blocks 2 to 3", 1),
        ("no single block is known", 1),
    ]


def test_every_check_that_passes_says_what_it_proves(wrong: Report) -> None:
    assert {check.name for check in wrong.checks} <= set(PROVES)


def test_the_page_can_be_saved(wrong: Report, tmp_path: Path) -> None:
    assert wrong.save_html(tmp_path / "page.html").read_text() == wrong.html()
