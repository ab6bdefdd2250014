"""A comparison as lines, as Markdown and as JSON."""

import io
import json
from dataclasses import replace

import pytest
from made_stored_runs import in_turns, output
from rich.console import Console

from harness.compare import Comparison, compare, parse_thresholds
from harness.compare.table import terminal_parts
from harness.compare.text import as_json, markdown, plain_lines

SCATTER = (99.0, 100.0, 101.0, 100.5, 99.5)
SLOWER = tuple(1.1 * one for one in SCATTER[::-1])
HOSTILE = "\x1b[31m<script>|[x](y)\n::error::"


@pytest.fixture
def slower() -> Comparison:
    return compare(*in_turns(SCATTER, SLOWER), parse_thresholds(["p99_ttft:+5%"]))


def hostile() -> Comparison:
    baseline, run = in_turns(SCATTER, SLOWER)
    wrong = {b"one": output([1, 9], wrong=True, request=HOSTILE)}
    named = [replace(one, name=HOSTILE, versions={"engine": HOSTILE}, outputs=wrong, problem="x") for one in run]
    return compare(baseline, [replace(one, why_no_latencies="x") for one in named])


def test_lines_begin_with_the_conclusion_and_its_reason(slower: Comparison) -> None:
    lines = list(plain_lines(slower))
    assert lines[0] == "WORSE: 5 runs against 5 of the baseline"
    assert "p99_ttft:+5%" in lines[1]
    (row,) = (line for line in lines if line.startswith("p99_ttft ms"))
    assert ": 100 to 110, +10.0 % (" in row.replace("100.0", "100")
    assert row.endswith("real, worse")


def test_a_terminal_shows_the_same_table(slower: Comparison) -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    for part in terminal_parts(slower, console):
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "p99_ttft ms" in shown
    assert "real, worse" in shown


def test_a_narrow_terminal_loses_no_word(slower: Comparison) -> None:
    console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    for part in terminal_parts(slower, console):
        console.print(part)
    assert "real, worse" in " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_json_has_the_figures_and_is_strict(slower: Comparison) -> None:
    content = json.loads(json.dumps(as_json(slower), allow_nan=False))
    metric = content["metrics"]["p99_ttft"]
    assert content["conclusion"] == "worse"
    assert content["exit_code"] == 1
    assert metric["baseline"] == list(SCATTER)
    assert metric["change"] == pytest.approx(0.1)
    low, high = metric["interval_95"]
    assert low < 0.1 < high
    assert metric["verdict"] == "real"
    assert content["limits"][0]["kept"] == "broken"


def test_foreign_text_reaches_neither_terminal_nor_page() -> None:
    found = hostile()
    lines = "\n".join(plain_lines(found))
    assert "\x1b" not in lines
    assert not any(line.startswith("::") for line in lines.splitlines())
    page = markdown(found)
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "[x](y)" not in page


def test_markdown_is_a_table_of_as_many_cells_in_each_row(slower: Comparison) -> None:
    rows = [line for line in markdown(slower).splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert {row.count("|") for row in rows} == {7}
