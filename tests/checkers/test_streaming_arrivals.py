"""Many kinds of arrivals, made with numpy: buffered answers are never valid, others never invalid."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import counted_run as run
import numpy as np
import pytest

from harness.checkers import token_arrivals
from harness.checkers.streaming import streaming
from harness.facts import Deployment
from harness.history import (
    Choice,
    ClientHealth,
    Ended,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    History,
    Outcome,
    Sent,
)
from harness.scenario import Request, Route
from harness.verdict import Check, Verdict

VALID, INVALID, UNKNOWN = Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN
STEP = 0.02
"""Seconds of an engine step."""

Bend = Callable[[int, float, np.ndarray], np.ndarray]
"""Changes the arrivals of one answer's events: (number, time of sending, times when each was generated)."""


def as_made(_number: int, _sent: float, made: np.ndarray) -> np.ndarray:
    return made


def judged(
    count: int,
    bend: Bend = as_made,
    *,
    seed: int = 0,
    tokens: Sequence[int] = (20, 30),
    chunks: Sequence[int] = (1, 1),
    step: Callable[[int], float] = lambda _number: STEP,
    prefill: float = 0.3,
    lag: float = 0.005,
    deployment: Deployment = run.DEPLOYMENT,
    server: Callable[[int], str] | None = None,
    **request: object,
) -> Check:
    """The check of ``count`` answers, eight or more in flight; ``chunks``: smallest and largest tokens per event."""
    rng = np.random.default_rng(seed)
    entries: list[Entry] = []
    for number in range(count):
        sent = float(rng.uniform(0, max(count / 64, 0.1)))
        sizes = _sizes(rng, int(rng.integers(tokens[0], tokens[1], endpoint=True)), chunks)
        gaps = step(number) * rng.uniform(0.8, 1.2, len(sizes) - 1)
        made = sent + prefill * rng.uniform(0.8, 1.2) + np.concatenate([[0.0], np.cumsum(gaps)])
        arrived = np.maximum.accumulate(bend(number, sent, made))
        times = tuple(float(at) for at, size in zip(arrived, sizes, strict=True) for _ in range(size))
        name = f"r{number}"
        asked = replace(Request(name, (1, 2, 3)), **request)  # type: ignore[arg-type]
        choice = Choice(tuple(range(len(times))), finish_reason="length")
        end = Ended(times[-1], name, Outcome.OK, status=200, choices=(choice,))
        end = replace(end, decode_server=server(number) if server else None)
        entries += [Sent(sent, asked, "s", "load", sent), replace(end, token_times=times, tokens_per_chunk=sizes)]
    return streaming(deployment, History((*entries, ClientHealth(99.0, lag, 0.0, lag / 10, 0.1))))


def _sizes(rng: np.random.Generator, tokens: int, chunks: Sequence[int]) -> tuple[int, ...]:
    sizes = []
    while sum(sizes) < tokens:
        sizes.append(min(int(rng.integers(chunks[0], chunks[1], endpoint=True)), tokens - sum(sizes)))
    return tuple(sizes)


def reads(*shares: float, gap: float = 0.001) -> Bend:
    """Held back until the last event is generated, then read in these shares, ``gap`` seconds apart."""

    def bend(_number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        places = np.searchsorted(np.cumsum(shares), (np.arange(len(made)) + 0.5) / len(made))
        return made[-1] + gap * places

    return bend


def only(numbers: Callable[[int], bool], bend: Bend) -> Bend:
    return lambda number, sent, made: bend(number, sent, made) if numbers(number) else made


SIZES = [1, 2, 8, 64, 500, 2000]


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_answers_that_arrive_as_generated_are_valid(count: int, seed: int) -> None:
    assert judged(count, seed=seed).verdict is VALID


@pytest.mark.parametrize("count", SIZES[1:])
@pytest.mark.parametrize("chunks", [(1, 5), (3, 6), (8, 8)])
def test_several_tokens_per_chunk_are_valid(count: int, chunks: tuple[int, int]) -> None:
    assert judged(count, chunks=chunks, tokens=(30, 60)).verdict is VALID


@pytest.mark.parametrize("tokens", [(2, 2), (2, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("count", [1, 64])
def test_short_answers_are_valid(tokens: tuple[int, int], count: int) -> None:
    assert judged(count, tokens=tokens).verdict is VALID


def test_short_answers_that_may_come_in_one_chunk_are_valid() -> None:
    assert judged(64, chunks=(1, 5), tokens=(1, 12)).verdict is VALID


@pytest.mark.parametrize("prefill", [0.005, 3.0])
@pytest.mark.parametrize("step", [0.001, 0.005, 0.2])
def test_slow_and_quick_engines_after_short_and_long_prompts_are_valid(prefill: float, step: float) -> None:
    assert judged(64, prefill=prefill, step=lambda _number: step).verdict is VALID


def test_two_decode_servers_of_different_pace_are_valid() -> None:
    assert judged(200, step=lambda number: STEP if number % 4 else STEP / 15, prefill=1.0).verdict is VALID


def test_engines_that_pause_are_valid() -> None:
    """After a preemption or another request's prefill, nothing arrives for a second."""

    def pauses(number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(made)) > number % 15, made + 1.0, made)

    assert judged(100, pauses).verdict is VALID


def test_a_client_that_reads_two_or_three_events_at_a_time_is_valid() -> None:
    def late(number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        tick = 2.5 * STEP
        return np.ceil(made / tick) * tick + number * 1e-5

    assert judged(200, late, lag=2.5 * STEP).verdict is VALID


def test_a_slow_client_is_not_invalid() -> None:
    def late(number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        return np.ceil(made / 0.4) * 0.4 + number * 1e-5

    assert judged(200, late, lag=0.4).verdict is UNKNOWN


@pytest.mark.parametrize("count", [8, 64, 500])
def test_a_stall_of_all_answers_is_not_invalid(count: int) -> None:
    def stalled(number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        return np.where((made > 0.2) & (made < 1.2), 1.2 + number * 1e-4, made)

    assert judged(count, stalled, prefill=0.2).verdict is not INVALID


@pytest.mark.parametrize("tokens", [4, 8, 12])
@pytest.mark.parametrize("lag", [0.01, 0.017])
def test_the_first_answers_of_a_load_are_made_faster_than_the_later_ones(tokens: int, lag: float) -> None:
    """An engine steps faster with few requests, so the client's own delay may merge a whole answer."""
    early = lag * 1.5 / (tokens - 1)

    def busy_at_first(number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        return np.full_like(made, made[-1]) if number < 12 else made

    check = judged(
        100, busy_at_first, tokens=(tokens, tokens), step=lambda number: early if number < 20 else early * 4, lag=lag
    )
    assert check.verdict is VALID


@pytest.mark.parametrize("merged", [3, 6, 9])
def test_a_server_that_sometimes_writes_several_steps_as_one_chunk_is_not_invalid(merged: int) -> None:
    """Most answers arrive token by token, a few have a chunk of several tokens, one has such a chunk at its end."""
    rng = np.random.default_rng(1)
    entries: list[Entry] = []
    for number in range(64):
        sizes = [1] * 16
        if number % 8 == 0:
            place = int(rng.integers(0, 16 - merged)) if number else 16 - merged
            sizes = [1] * place + [merged] + [1] * (16 - merged - place)
        entries += chunked(f"r{number}", 0.001 * number, sizes)
    check = streaming(run.DEPLOYMENT, History((*entries, ClientHealth(99.0, 0.005, 0.0, 0.001, 0.1))))
    assert check.verdict is VALID


def chunked(name: str, sent: float, sizes: Sequence[int]) -> list[Entry]:
    """An answer with chunks of these sizes, each written when its last token is generated."""
    ends = np.cumsum(sizes) * STEP + sent + 0.3
    times = tuple(float(end) for end, size in zip(ends, sizes, strict=True) for _ in range(size))
    choice = Choice(tuple(range(len(times))), finish_reason="length")
    ended = Ended(times[-1], name, Outcome.OK, status=200, choices=(choice,), token_times=times)
    sizes = tuple(sizes)
    return [Sent(sent, Request(name, (1, 2, 3)), "s", "load", sent), replace(ended, tokens_per_chunk=sizes)]


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_a_stall_of_one_of_two_decode_servers_is_not_a_buffer(reported: bool, held: bool) -> None:
    """Streams from another server show nothing; if the server is known, streams from the same server do."""

    def stalls(number: int, _sent: float, made: np.ndarray) -> np.ndarray:
        if held and number == 7:
            return np.full_like(made, made[-1])
        waits = (made > 0.4) & (made < 1.4) & (not held and number % 2 == 0)
        return np.where(waits, 1.4 + number * 1e-4, made)

    second = replace(run.DEPLOYMENT.servers[1], name="decode-1", url="u1")
    two = replace(run.DEPLOYMENT, servers=(*run.DEPLOYMENT.servers, second))
    check = judged(64, stalls, deployment=two, server=(lambda number: f"u{number % 2}") if reported else None)
    assert check.verdict is (INVALID if held and reported else VALID)


BUFFERED = {
    "one read": reads(1.0),
    "two reads": reads(0.5, 0.5),
    "two uneven reads": reads(0.9, 0.1),
    "three reads": reads(0.4, 0.3, 0.3),
    "five reads": reads(0.2, 0.2, 0.2, 0.2, 0.2, gap=0.0006),
    "its events one by one": lambda _n, _s, made: made[-1] + np.arange(len(made)) * 0.0003,
    "its first token at once": lambda _n, _s, made: np.concatenate([made[:1], np.full(len(made) - 1, made[-1])]),
}


@pytest.mark.parametrize("how", BUFFERED)
@pytest.mark.parametrize("count", [32, 500])
def test_an_answer_that_is_held_back_while_others_arrive_is_named(how: str, count: int) -> None:
    check = judged(count, only(lambda number: number == 7, BUFFERED[how]), tokens=(24, 30))
    assert check.verdict is INVALID
    assert [finding.subject for finding in check.findings] == ["r7"]


@pytest.mark.parametrize("how", BUFFERED)
@pytest.mark.parametrize("share", [2, 4])
def test_a_share_of_answers_held_back_is_never_valid(how: str, share: int) -> None:
    assert judged(200, only(lambda number: number % share == 0, BUFFERED[how])).verdict is INVALID


@pytest.mark.parametrize("how", BUFFERED)
def test_a_majority_of_answers_held_back_is_never_valid(how: str) -> None:
    assert judged(200, only(lambda number: number % 5 > 0, BUFFERED[how])).verdict is not VALID


@pytest.mark.parametrize("how", BUFFERED)
@pytest.mark.parametrize("count", SIZES)
def test_if_all_answers_are_held_back_the_check_is_unknown(how: str, count: int) -> None:
    check = judged(count, BUFFERED[how])
    assert check.verdict is UNKNOWN
    assert count == 1 or "may hold all answers back" in check.summary


def test_requests_without_streaming_are_unknown() -> None:
    check = judged(8, stream=False)
    assert check.verdict is UNKNOWN
    assert check.summary == "no request that completed asked for a streamed answer"


def test_a_body_instead_of_a_stream_is_unknown() -> None:
    entries: list[Entry] = []
    for number in range(3):
        ended = Ended(1.0, f"w{number}", Outcome.OK, status=200, choices=(Choice((1, 2, 3, 4, 5)),))
        entries += [Sent(0.0, Request(f"w{number}", (1,)), "s", "load", 0.0), ended]
    check = streaming(run.DEPLOYMENT, History((*entries, ClientHealth(9.0, 0.0, 0.0, 0.0, 0.1))))
    assert check.verdict is UNKNOWN
    assert check.summary.startswith("3 of 3 answers arrived as one body, although a stream was asked for")


def test_answers_of_one_token_are_unknown() -> None:
    assert judged(8, tokens=(1, 1)).verdict is UNKNOWN


def test_streams_outside_the_path_under_test_do_not_count() -> None:
    """Streamed control requests are no evidence about the proxy."""

    def direct_ones(check_all: bool) -> Check:
        entries: list[Entry] = []
        for number in range(20):
            route = Route.DECODE if number % 2 else Route.PROXY
            made = 0.3 + number / 100 + np.arange(20) * STEP
            times = tuple(made) if route is Route.DECODE or check_all else (float(made[-1]),) * 20
            ended = Ended(times[-1], f"r{number}", Outcome.OK, status=200, choices=(Choice(tuple(range(20))),))
            sent = Sent(0.0, Request(f"r{number}", (1,), route=route), "s", "load", 0.0)
            entries += [sent, replace(ended, token_times=times, tokens_per_chunk=(1,) * 20)]
        return streaming(run.DEPLOYMENT, History((*entries, ClientHealth(9.0, 0.001, 0.0, 0.0, 0.1))))

    assert direct_ones(check_all=True).verdict is VALID
    assert direct_ones(check_all=False).verdict is INVALID


def test_the_cost_of_the_check_grows_with_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    between = token_arrivals.any_between

    def counted(instants: Sequence[float], start: float, end: float) -> bool:
        nonlocal asked
        asked += 1
        return between(instants, start, end)

    monkeypatch.setattr("harness.checkers.held_back.any_between", counted)
    judged(2000, only(lambda number: number % 2 == 0, BUFFERED["two reads"]))
    assert 0 < asked < 2000 * 30


def answer(name: str, start: float, tokens: int = 20, *, at_once: bool = False, chunk: int = 1) -> list[Entry]:
    """One streamed answer; ``at_once``: all tokens arrive when the last one is generated."""
    end = start + (tokens - 1) // chunk * STEP
    times = [end] * tokens if at_once else [start + index // chunk * STEP for index in range(tokens)]
    chunks = (tokens,) if at_once else (chunk,) * (tokens // chunk)
    ended = Ended(end, name, Outcome.OK, status=200, choices=(Choice(tuple(range(tokens))),), token_times=tuple(times))
    return [Sent(start, Request(name, (1, 2, 3)), "s", "load", start), replace(ended, tokens_per_chunk=chunks)]


def history(*answers: Sequence[Entry], lag: float = 0.01) -> History:
    entries = [entry for one in answers for entry in one]
    return History((*entries, ClientHealth(9.0, lag, 0.0, lag / 10, 0.1)))


def neighbours(count: int = 6, **fields: int) -> list[list[Entry]]:
    return [answer(f"n{index}", 0.003 * index - 0.005, 24, **fields) for index in range(count)]


def test_answers_in_pieces_are_valid() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours()))
    assert check.verdict is VALID
    assert "6 of 6" in check.summary


def test_one_answer_held_back_among_six_is_named() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours(), answer("held", 0.0, at_once=True)))
    assert check.verdict is INVALID
    assert [finding.subject for finding in check.findings] == ["held"]


@pytest.mark.parametrize(("began", "healed", "verdict"), [(0.1, 0.2, VALID), (1.0, 1.1, INVALID)])
def test_an_answer_that_a_fault_held_back_is_not_held_against_the_deployment(
    began: float, healed: float, verdict: Verdict
) -> None:
    """A throttled link hands on afterwards what it held. A fault that began later held nothing."""
    fault = [
        FaultPlanned(0.0, "link-1", "link", "decode-0", "throttle the link"),
        FaultBegan(began, "link-1"),
        FaultHealed(healed, "link-1", healed=True, text="passes everything"),
    ]
    of_load = answer("after", 1.5)
    check = streaming(run.DEPLOYMENT, history(fault, *neighbours(), answer("held", 0.0, at_once=True), of_load))
    assert check.verdict is verdict, check.summary


def test_a_fault_that_held_most_answers_back_leaves_nothing_to_conclude() -> None:
    """What is not held against the deployment is no evidence for it either."""
    fault = [
        FaultPlanned(0.0, "link-1", "link", "decode-0", "throttle the link"),
        FaultBegan(0.1, "link-1"),
        FaultHealed(0.2, "link-1", healed=True, text="passes everything"),
    ]
    held = [answer(f"held{number}", 0.0, at_once=True) for number in range(9)]
    check = streaming(run.DEPLOYMENT, history(fault, *neighbours(), *held, answer("after", 1.5)))
    assert check.verdict is UNKNOWN, check.summary


def test_a_stall_after_which_answers_arrive_one_connection_after_another_is_not_invalid() -> None:
    """Nothing arrives for a while, then everything does, connection by connection."""

    def stalled(entries: list[Entry], until: float) -> list[Entry]:
        sent, ended = entries
        assert isinstance(ended, Ended)
        return [sent, replace(ended, token_times=tuple(max(time, until) for time in ended.token_times))]

    waiting = [stalled(one, 0.4 + index / 1000) for index, one in enumerate(neighbours())]
    check = streaming(run.DEPLOYMENT, history(*waiting, answer("late", 0.0, at_once=True)))
    assert check.verdict is VALID
    assert "cannot be determined" in check.summary


def test_answers_shorter_than_the_clients_own_delays_are_not_judged() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours(), answer("held", 0.0, at_once=True), lag=0.2))
    assert check.verdict is VALID


def test_a_server_that_sends_large_chunks_holds_nothing_back() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours(chunk=8), answer("one chunk", 0.0, 8, at_once=True)))
    assert check.verdict is VALID


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_answers_in_pieces_there_is_no_pace(count: int) -> None:
    """If every stream arrived at once, or there was none, the check is unknown."""
    answers = [answer(f"a{index}", 0.0, at_once=True) for index in range(count)]
    assert streaming(run.DEPLOYMENT, history(*answers)).verdict is UNKNOWN


@pytest.mark.parametrize("seed", range(5))
def test_a_few_slow_answers_beside_many_quick_ones_show_no_buffer(seed: int) -> None:
    """An engine that steps in no time when it has one request, and in 4 ms when it has eight."""

    def step(number: int) -> float:
        return 0.004 if number % 12 == 0 else 1e-5

    found = judged(240, seed=seed, tokens=(8, 8), step=step, prefill=0.05, lag=0.0005)
    assert found.verdict is not INVALID, found.summary
