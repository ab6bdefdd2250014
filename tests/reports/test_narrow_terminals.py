"""Numbers and reasons are shown whole on a narrow terminal."""

import io

import pytest
from rich.console import Console
from run_fixtures import DEPLOYMENT, HISTORY, INVALID

from harness.reports import Row, make_report, print_catalogue
from harness.reports.catalogue import catalogue_lines
from harness.reports.terminal import print_overview

OVERVIEW = make_report(DEPLOYMENT, HISTORY, INVALID).overview
ROW = Row("several_choices", "sampling", "as given", INVALID, requests=3)


def shown(width: int) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, record=True, highlight=False)
    print_overview(OVERVIEW, console)
    return console.export_text()


@pytest.mark.parametrize("width", range(12, 100, 4))
def test_counters_and_latencies_are_shown_whole(width: int) -> None:
    text = shown(width)
    unbroken = "".join(text.split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "offload_store_bytes" in unbroken
    assert "99,614,720" in unbroken
    assert "external_kv_transfer" in unbroken


def test_counters_are_a_table_if_there_is_room() -> None:
    assert "server      counter" in shown(80)


@pytest.mark.parametrize("width", [20, 60, 80])
def test_a_catalogue_is_plain_lines_if_a_column_would_be_too_narrow(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    print_catalogue([ROW], stream=stream)
    assert stream.getvalue().splitlines() == list(catalogue_lines([ROW]))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
