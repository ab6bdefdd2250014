"""Answers that were held back until their end are distinguished from answers that a stall delayed."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers.streaming import streaming
from harness.history import Choice, ClientHealth, Ended, Entry, History, Outcome, Sent
from harness.scenario import Request
from harness.verdict import Verdict

ITL = 0.02


def answer(name: str, start: float, tokens: int = 20, *, at_once: bool = False, chunk: int = 1) -> list[Entry]:
    """One streamed answer; ``at_once``: all tokens arrive when the last one is generated."""
    end = start + (tokens - 1) // chunk * ITL
    times = [end] * tokens if at_once else [start + index // chunk * ITL for index in range(tokens)]
    chunks = (tokens,) if at_once else (chunk,) * (tokens // chunk)
    ended = Ended(end, name, Outcome.OK, status=200, choices=(Choice(tuple(range(tokens))),), token_times=tuple(times))
    return [Sent(start, Request(name, (1, 2, 3)), "s", "load", start), replace(ended, tokens_per_chunk=chunks)]


def history(*answers: list[Entry], lag: float = 0.01) -> History:
    entries = [entry for one in answers for entry in one]
    return History((*entries, ClientHealth(9.0, lag, 0.0, lag / 10, 0.1)))


def neighbours(count: int = 6, **fields: int) -> list[list[Entry]]:
    return [answer(f"n{index}", 0.003 * index - 0.005, 24, **fields) for index in range(count)]


def test_answers_in_pieces_are_valid() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours()))
    assert check.verdict is Verdict.VALID
    assert "6 of 6" in check.summary


def test_an_answer_that_is_held_back_while_others_arrive_is_named() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours(), answer("held", 0.0, at_once=True)))
    assert check.verdict is Verdict.INVALID
    assert [finding.subject for finding in check.findings] == ["held"]


def test_a_stall_of_all_answers_is_not_invalid() -> None:
    """Nothing arrives for a while, then everything does, connection by connection."""

    def stalled(entries: list[Entry], until: float) -> list[Entry]:
        sent, ended = entries
        assert isinstance(ended, Ended)
        return [sent, replace(ended, token_times=tuple(max(time, until) for time in ended.token_times))]

    waiting = [stalled(one, 0.4 + index / 1000) for index, one in enumerate(neighbours())]
    check = streaming(run.DEPLOYMENT, history(*waiting, answer("late", 0.0, at_once=True)))
    assert check.verdict is Verdict.VALID
    assert "cannot be determined" in check.summary


def test_answers_shorter_than_the_clients_own_delays_are_not_judged() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours(), answer("held", 0.0, at_once=True), lag=0.2))
    assert check.verdict is Verdict.VALID


def test_a_server_that_sends_large_chunks_holds_nothing_back() -> None:
    check = streaming(run.DEPLOYMENT, history(*neighbours(chunk=8), answer("one chunk", 0.0, 8, at_once=True)))
    assert check.verdict is Verdict.VALID


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_answers_in_pieces_there_is_no_pace(count: int) -> None:
    """If every stream arrived at once, or there was none, the check is unknown."""
    answers = [answer(f"a{index}", 0.0, at_once=True) for index in range(count)]
    assert streaming(run.DEPLOYMENT, history(*answers)).verdict is Verdict.UNKNOWN
