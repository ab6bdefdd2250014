"""A run as Markdown, rendered by a Markdown library: structure is ours, and texts are shown as they are."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, STARTED, UNKNOWN, VALID, entries

from harness.history import History
from harness.reports import LoadSettings, Report, Row, make_report
from harness.reports.ci.markdown import code, escaped, rows_markdown, run_markdown
from harness.verdict import Check, Finding, Judgement, Verdict

HOSTILE = (
    "</td></table><script>alert(1)</script> ![x](http://evil/x.png) [y](http://evil) <http://evil> http://evil "
    "www.evil.com me@evil.com @everyone #1 | a | **b** _c_ ~~d~~ `e` $f$ \\g &lt; &#60; :tada: <!-- h"
)


def rendered(markdown: str) -> str:
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def tags_of(page: str) -> set[str]:
    return set(re.findall(r"</?([a-z0-9]+)", page))


def report(judgement: Judgement, *, rows: tuple[Row, ...] = (), label: str = "", history: History = HISTORY) -> Report:
    return make_report(DEPLOYMENT, history, judgement, Path("/runs/one"), LoadSettings(2, label=label), rows=rows)


@pytest.mark.parametrize("template", ["{}", "- {}", "| a |\n| --- |\n| {} |", "**{}**: x"])
def test_a_hostile_text_is_shown_as_it_is(template: str) -> None:
    page = rendered(template.format(escaped(HOSTILE)))
    assert HOSTILE in text_of(page)
    assert tags_of(page) <= {"p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong"}


def test_nothing_of_a_text_becomes_a_link_or_a_mention_on_github() -> None:
    """GitHub looks for these in the Markdown itself."""
    written = escaped(HOSTILE)
    assert not re.search(r"://|www\.|[@#$`<>|\[\]*_~\\]", re.sub(r"&#\d+;", "", written))


def test_control_characters_and_lines_are_gone() -> None:
    assert escaped("a\n# b\r\n\x1b[31m\x00\u202ec") == "a &#35; b \ufffd&#91;31m\ufffd\ufffdc"


@pytest.mark.parametrize("text", ["echo 'a'", "a `b` c", "```", "`````", "a ``` b ```` c", "", "`"])
def test_a_command_in_a_block_of_code_cannot_leave_it(text: str) -> None:
    page = rendered(code(text) + "\n\nafter")
    assert page.count("<pre>") == 1
    assert page.rstrip().endswith("<p>after</p>")
    assert " ".join(text.split()) in text_of(page)


def test_the_order_is_that_of_a_readers_questions() -> None:
    page = rendered(run_markdown(report(INVALID, label="nightly")))
    heads = [text_of(head) for head in re.findall(r"<h[23]>.*?</h[23]>", page)]
    assert heads == [
        "\u274c pd-harness nightly: INVALID",
        "Counters",
        "Outputs",
        "Latencies in ms (95 % confidence interval)",
        "To repeat the run",
    ]
    text = text_of(page)
    assert text.index("INVALID token_sources") < text.index("UNKNOWN offload_bytes") < text.index("Counters")
    assert "python -m harness check /runs/one" in text
    assert "sesame" not in text


def test_counters_and_latencies_are_tables_with_their_figures() -> None:
    page = rendered(run_markdown(report(INVALID)))
    cells = [
        [text_of(cell) for cell in re.findall(r"<td>(.*?)</td>", line)]
        for line in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]
    assert ["DIFFERS", "decode-0", "external_kv_transfer", "26,913", "0", "-26,913", ""] in cells
    assert ["UNKNOWN", "prefill-0", "offload_store_bytes", "99,614,720", "-", "", ""] in cells
    assert ["TTFT", "200", "200", "200", "200"] in cells


@pytest.mark.parametrize(
    ("judgement", "sign"), [(VALID, "\u2705 pd-harness: VALID"), (UNKNOWN, "\u2754 pd-harness: UNKNOWN")]
)
def test_the_verdict_is_a_word_beside_its_sign(judgement: Judgement, sign: str) -> None:
    assert run_markdown(report(judgement)).splitlines()[0] == f"## {sign}"


def test_workloads_are_a_table_with_reasons_for_what_is_not_valid() -> None:
    bad = Judgement((Check("outputs", Verdict.INVALID, "1 is wrong"),))
    rows = (
        Row("right", "f", "multi", VALID, seconds=2.0),
        Row("wrong", "f", "multi", bad),
        Row("two", "f", "multi", skipped="it needs more"),
    )
    for markdown in (run_markdown(report(bad, rows=rows)), rows_markdown(rows)):
        text = text_of(rendered(markdown))
        assert "3 workloads: 1 valid, 1 invalid, 1 skipped" in text
        assert "invalid outputs: 1 is wrong" in text
        assert "it needs more" in text


def test_a_table_of_thousands_of_rows_is_cut_and_says_so() -> None:
    rows = [Row(f"w{number}", "f", "multi", VALID) for number in range(1200)]
    markdown = rows_markdown(rows)
    assert "w199" in markdown
    assert "w200" not in markdown
    assert "and 1,000 more" in markdown


def test_a_run_of_hostile_texts_keeps_its_structure() -> None:
    check = Check(HOSTILE, Verdict.INVALID, HOSTILE, findings=(Finding(HOSTILE, HOSTILE),))
    judgement = Judgement((check,))
    history = History((replace(STARTED, argv=("--label", HOSTILE)), *entries()[1:]))
    rows = (Row(HOSTILE, HOSTILE, HOSTILE, judgement), Row(HOSTILE, "f", "d", skipped=HOSTILE))
    for made in (report(judgement, label=HOSTILE, history=history), report(judgement, rows=rows, history=history)):
        page = rendered(run_markdown(made))
        assert tags_of(page) <= {
            *("h2", "h3", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td", "pre", "code"),
        }
        assert text_of(page).count("To repeat the run") == 1
