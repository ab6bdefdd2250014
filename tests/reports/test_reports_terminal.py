"""The overview in plain lines and on a terminal, and progress."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, UNKNOWN, VALID, compared

from harness.reports import (
    LiveProgress,
    PlainProgress,
    Progress,
    Row,
    make_progress,
    make_report,
    print_catalogue,
    print_report,
)
from harness.reports.catalogue import catalogue_lines
from harness.reports.counters import rows
from harness.reports.screen.terminal import print_overview
from harness.reports.text import clean, count, duration, figure
from harness.verdict import Check, Finding, Judgement, Verdict

AGAIN = "python -m harness --concurrency 32 --header 'Authorization=<redacted>' --seed 7"


def _plain(judgement: Judgement) -> str:
    stream = io.StringIO()
    print_report(make_report(DEPLOYMENT, HISTORY, judgement, Path("runs/r")), stream=stream)
    return stream.getvalue()


def _terminal(judgement: Judgement, width: int = 80) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, record=True, highlight=False)
    print_overview(make_report(DEPLOYMENT, HISTORY, judgement, Path("runs/r")).overview, console)
    return console.export_text()


def test_the_plain_report_of_a_failed_run() -> None:
    assert (
        _plain(INVALID)
        == f"""\
INVALID: 1 of 3 checks failed, 1 could not be judged
  INVALID token_sources: decode computed every prompt token itself: nothing was transferred
    load-0, load-1, load-2 and 2 more: answered without KV from prefill-0
  UNKNOWN offload_bytes: offload_store_bytes of prefill-0 in load is unknown: the deployment had not settled
  valid outputs: 128 of 128 outputs equal their reference token for token
counters:
  DIFFERS prefill-0 local_compute: expected 26,913, observed 0 (-26,913)
  UNKNOWN prefill-0 offload_store_bytes: expected 99,614,720, observed -
  DIFFERS decode-0 local_compute: expected 0, observed 26,913 (+26,913)
  ok decode-0 local_cache_hit: expected 0, observed 0
  DIFFERS decode-0 external_kv_transfer: expected 26,913, observed 0 (-26,913)
  ok 1 further counter
outputs: 128 compared: 128 exact, 0 tie, 0 mismatch, 0 unverified
  verification computed 7 tokens (78% of the load's 9) in 0.5 s; the load took 1.0 s
TTFT ms: mean 200, p50 200, p90 200, p99 200
ITL ms: mean 150, p50 150, p90 190, p99 199
TPOT ms: mean 150, p50 150, p90 150, p99 150
E2E ms: mean 500, p50 500, p90 500, p99 500
throughput: 1.00 requests/s, 3.00 output tokens/s (7.00 with prompts); 1 completed, 1 failed in 1.0 s
deployment: vllm 0.32.0 on cpu; 1 prefill + 1 decode, launched; MultiConnector[nixl, offloading]; block size 32; \
model canary
stored: runs/r
again: {AGAIN}
"""
    )


@pytest.mark.parametrize(
    ("judgement", "first"),
    [
        (VALID, "VALID: all 3 checks passed"),
        (INVALID, "INVALID: 1 of 3 checks failed, 1 could not be judged"),
        (UNKNOWN, "UNKNOWN: 1 of 1 check could not be judged"),
        (Judgement((), UNKNOWN.outputs), "UNKNOWN: nothing was checked"),
    ],
)
def test_the_verdict_comes_first_as_a_word(judgement: Judgement, first: str) -> None:
    assert _plain(judgement).splitlines()[0] == first
    word, headline = first.split(": ", 1)
    assert " ".join(_terminal(judgement).split()).startswith(f"{word} {headline}")


def test_the_overview_of_a_run_that_ended_early_says_so() -> None:
    killed = type(HISTORY)(HISTORY.entries[:-1])
    overview = make_report(DEPLOYMENT, killed, VALID).overview
    assert overview.headline == "all 3 checks passed; the run ended early"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("judgement", [VALID, INVALID, UNKNOWN])
def test_a_terminal_shows_every_figure_within_its_width(judgement: Judgement, width: int) -> None:
    shown = _terminal(judgement, width)
    assert max(map(len, shown.splitlines())) <= width
    words = " ".join(shown.split())
    for row in rows(judgement.comparisons):
        if row.counter != "prompt_tokens":
            assert f"{row.counter} {row.expected} {count(row.observed)}" in words
    assert AGAIN in words
    assert "…" not in shown, "every text is whole"


def test_no_color_leaves_layout_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system="standard")
    print_overview(make_report(DEPLOYMENT, HISTORY, INVALID).overview, console)
    assert "INVALID" in stream.getvalue()
    assert not any(f"\x1b[{colour}m" in stream.getvalue() for colour in ("31", "32", "33", "1;31", "1;7;31"))
    monkeypatch.delenv("NO_COLOR")
    coloured = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard", record=True)
    print_overview(make_report(DEPLOYMENT, HISTORY, INVALID).overview, coloured)
    assert "1;31m" in coloured.export_text(styles=True)


def test_only_rows_that_differ_are_highlighted() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard", record=True)
    print_overview(make_report(DEPLOYMENT, HISTORY, INVALID).overview, console)
    lines = console.export_text(styles=True).splitlines()
    painted = {
        name: any("31m" in line for line in lines if name in line) for name in ("external_kv", "local_cache_hit")
    }
    assert painted == {"external_kv": True, "local_cache_hit": False}


def test_a_servers_message_cannot_control_the_terminal() -> None:
    nasty = "\x1b[2J[red]boom[/red]\nVALID\x9b31m"
    judgement = Judgement((Check("c", Verdict.INVALID, nasty, findings=(Finding("r", nasty),)),), VALID.outputs)
    assert "\x1b[2J" not in _plain(judgement)
    assert "[red]boom[/red] VALID" in _plain(judgement)
    assert "[red]boom[/red] VALID" in _terminal(judgement)


def test_errors_that_cancel_out_are_still_errors() -> None:
    (row,) = rows([compared("d", "c", 5, 15.0, phase="one"), compared("d", "c", 15, 5.0, phase="two")])
    assert (row.verdict, row.difference) == (Verdict.INVALID, 0)
    assert row.note == "in random_load/one, random_load/two"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (float("nan"), "-"), (0.0, "0.00"), (9.994, "9.99"), (9.995, "10.0"), (99.94, "99.9"),
        (99.96, "100"), (999.5, "1,000"), (12345.6, "12,346"),
    ],
)  # fmt: skip
def test_figures_round_to_what_can_be_read(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (119.6, "2 min 00 s"), (185, "3 min 05 s"),
     (7199.6, "2 h 00 min")],
)  # fmt: skip
def test_durations_round_without_sixty_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_are_never_rounded() -> None:
    assert count(12345678901234.0) == "12,345,678,901,234"
    assert count(0.5) == "0.5"
    assert clean("x" * 300) == "x" * 237 + "..."


class _Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_plain_progress_of_a_run() -> None:
    clock, stream = _Clock(), io.StringIO()
    with PlainProgress(stream, clock) as progress:
        for second in range(12):
            clock.time = float(second)
            progress.deploy("prefill-0", "loading weights", float(second))
        progress.deploy("prefill-0", "answering", 11.0)
        progress.phase("cold", "load", 128)
        for done in range(129):
            clock.time = 11 + done / 16
            progress.advance(done, 128, done // 100)
        progress.note("settling")
        progress.phase("cold", "reference", 4)
        clock.time += 11
        progress.advance(0, 4, 0)
    assert stream.getvalue().splitlines() == [
        "prefill-0: loading weights, 0.0 s",
        "prefill-0: loading weights, 10 s",
        "prefill-0: answering, 11 s",
        "cold/load: 128 requests",
        "cold/load: 16/128 requests, 0 failed, 16.0 requests/s, 1.0 s",
        "cold/load: 32/128 requests, 0 failed, 16.0 requests/s, 2.0 s",
        "cold/load: 48/128 requests, 0 failed, 16.0 requests/s, 3.0 s",
        "cold/load: 64/128 requests, 0 failed, 16.0 requests/s, 4.0 s",
        "cold/load: 80/128 requests, 0 failed, 16.0 requests/s, 5.0 s",
        "cold/load: 96/128 requests, 0 failed, 16.0 requests/s, 6.0 s",
        "cold/load: 112/128 requests, 1 failed, 16.0 requests/s, 7.0 s",
        "settling",
        "cold/load: ended: 128/128 requests, 1 failed, 16.0 requests/s, 8.0 s",
        "cold/reference: 4 requests",
        "cold/reference: 0/4 requests, 0 failed, 0.00 requests/s, 11 s",
        "cold/reference: ended: 0/4 requests, 0 failed, 0.00 requests/s, 11 s",
    ]


def _drawn(progress: LiveProgress) -> str:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(progress.render())
    return " ".join(console.export_text().split())


def test_live_progress_draws_the_current_phase_and_leaves_lines_of_finished_ones() -> None:
    clock, stream = _Clock(), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with LiveProgress(console, clock, redraw=False) as progress:
        progress.deploy("prefill-0", "loading weights", 31.0)
        progress.deploy("decode-0", "answering", 30.0)
        clock.time = 2.0
        assert _drawn(progress) == "prefill-0 loading weights 33 s decode-0 answering 30 s"
        progress.phase("cold", "load", 128)
        progress.advance(64, 128, 1)
        clock.time = 6.0
        assert _drawn(progress).startswith("cold/load ━")
        assert _drawn(progress).endswith("64/128 requests, 1 failed, 16.0 requests/s, 4.0 s")
    assert "decode-0: answering, 30 s" in stream.getvalue()
    assert "cold/load: 64/128 requests, 1 failed" in stream.getvalue()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_kind_of_progress_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    kinds: list[Progress] = [
        make_progress(clock=_Clock(), stream=_Terminal()),
        make_progress(clock=_Clock(), stream=io.StringIO()),
        make_progress(clock=_Clock(), stream=_Terminal(), plain=True),
    ]
    assert [type(kind) for kind in kinds] == [LiveProgress, PlainProgress, PlainProgress]
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(clock=_Clock(), stream=_Terminal()), PlainProgress)


def test_a_pipe_gets_no_escape_sequences_and_no_boxes() -> None:
    assert not set("\x1b─━│┌") & set(_plain(INVALID))


@pytest.mark.parametrize("width", range(12, 100, 4))
def test_counters_and_latencies_are_shown_whole(width: int) -> None:
    text = _terminal(INVALID, width)
    unbroken = "".join(text.split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "offload_store_bytes" in unbroken
    assert "99,614,720" in unbroken
    assert "external_kv_transfer" in unbroken


def test_counters_are_a_table_if_there_is_room() -> None:
    assert "server      counter" in _terminal(INVALID, 80)


@pytest.mark.parametrize("width", [20, 60, 80])
def test_a_catalogue_is_plain_lines_if_a_column_would_be_too_narrow(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    row, stream = Row("several_choices", "sampling", "as given", INVALID, requests=3), _Terminal()
    print_catalogue([row], stream=stream)
    assert stream.getvalue().splitlines() == list(catalogue_lines([row]))
