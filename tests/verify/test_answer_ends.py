"""An answer shorter than max_tokens must have ended at an end token or a stop string."""

import json
from dataclasses import replace
from typing import Any

import load_wire as wire
import pytest
from counted_run import DEPLOYMENT
from forced_histories import TOKENS, gaussian, run, with_end, with_sampling

from harness.history import Choice, Decoding, Ended, Entry, History, Outcome, Sent
from harness.load.answers.answer import Answer
from harness.scenario import Condition, Purpose, Request, Route, Sampling
from harness.verdict import Check, Verdict
from harness.verify.judging import count_outputs, outputs
from harness.verify.judging.answer_end import known_end_tokens

VALID, INVALID, UNKNOWN = Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN
VICTIM = "load-17"
SHORT = 5
"""Tokens of the answer that ends early."""


def ended_early(
    ends: tuple[int, ...] | None, spelled: str = "", sampling: dict[str, Any] | None = None, **choice: Any
) -> tuple[Check, str]:
    """The check of a run in which one answer has only SHORT tokens, and the text of the finding about it.

    ``ends``: the known end tokens, where 0 stands for the last token of that answer; None: the history names none.
    ``spelled``: the text of the answer's last tokens as its forcing reports it, one letter per token.
    """
    history = with_sampling(run(gaussian(1e-6)), VICTIM, **(sampling or {}))
    sent = {o.request.request_id: o for o in history.operations()}
    victim, forcing = sent[VICTIM], sent[f"{VICTIM}-teacher"]
    whole, length = victim.ended.choices[0], len(victim.request.prompt) + SHORT
    last = whole.token_ids[SHORT - 1]
    stop = {"stop_reason": last} if choice.get("stop_reason") == 0 else {}
    short = replace(whole, token_ids=whole.token_ids[:SHORT], logprobs=whole.logprobs[:SHORT])
    history = with_end(history, VICTIM, choices=(replace(short, **choice | stop),), usage=None)
    logprobs = (forcing.ended.prompt_logprobs or ())[:length]
    history = with_end(history, forcing.request.request_id, prompt_logprobs=logprobs, prompt_end=tuple(spelled))
    shorter = replace(forcing.sent, request=replace(forcing.request, prompt=forcing.request.prompt[:length]))
    known = () if ends is None else (Decoding(0.0, tuple(token or last for token in ends)),)
    entries = (shorter if entry is forcing.sent else entry for entry in history.entries)
    check = outputs(DEPLOYMENT, History((*known, *entries)))
    return check, next((one.text for one in check.findings if one.subject == VICTIM), "")


def test_an_answer_that_ends_at_its_length_needs_no_end_token() -> None:
    assert outputs(DEPLOYMENT, run(gaussian(1e-6))).verdict is VALID


@pytest.mark.parametrize("stop_reason", [None, 0])
def test_a_stop_at_an_end_token_is_right(stop_reason: int | None) -> None:
    check, _ = ended_early((3, 0), finish_reason="stop", stop_reason=stop_reason)
    assert check.verdict is VALID


def test_a_stop_at_any_other_token_is_wrong() -> None:
    check, text = ended_early((3, 4), finish_reason="stop")
    assert check.verdict is INVALID
    assert "is not an end token of this model" in text


@pytest.mark.parametrize("ends", [None, ()])
def test_a_stop_is_unverified_if_the_end_tokens_are_not_known(ends: tuple[int, ...] | None) -> None:
    check, text = ended_early(ends, finish_reason="stop")
    assert check.verdict is UNKNOWN
    assert "--model" in text


def test_a_stop_that_names_another_token_than_the_last_is_wrong() -> None:
    check, text = ended_early((3, 0), finish_reason="stop", stop_reason=-5)
    assert check.verdict is INVALID
    assert "its last token is" in text


def test_a_named_token_that_is_not_known_to_end_answers_is_unverified() -> None:
    assert ended_early((3, 4), finish_reason="stop", stop_reason=0)[0].verdict is UNKNOWN


@pytest.mark.parametrize("reason", ["repetition", "eos", "banana"])
def test_an_unknown_finish_reason_is_unverified(reason: str) -> None:
    assert ended_early((3, 0), finish_reason=reason)[0].verdict is UNKNOWN


def test_a_length_below_max_tokens_is_wrong() -> None:
    assert ended_early((3, 0), finish_reason="length")[0].verdict is INVALID


STOP = {"stop": ("lo", "x")}


@pytest.mark.parametrize(
    ("spelled", "verdict"), [("hello", VALID), ("jello", VALID), ("helot", UNKNOWN), ("", UNKNOWN)]
)
def test_a_stop_string_must_have_been_completed_by_the_last_token(spelled: str, verdict: Verdict) -> None:
    check, _ = ended_early((3, 4), spelled, STOP, finish_reason="stop", stop_reason="lo")
    assert check.verdict is verdict


def test_a_stop_string_that_occurred_before_does_not_confirm_the_end() -> None:
    assert ended_early((3, 4), "lolox", STOP, finish_reason="stop", stop_reason="lo")[0].verdict is UNKNOWN


def test_a_stop_string_that_was_not_requested_is_wrong() -> None:
    check, text = ended_early((3, 4), "hello", STOP, finish_reason="stop", stop_reason="el")
    assert check.verdict is INVALID
    assert "not a stop string of the request" in text


def test_a_stop_without_its_string_is_unverified_unless_it_is_at_an_end_token() -> None:
    assert ended_early((3, 4), "hello", STOP, finish_reason="stop")[0].verdict is UNKNOWN
    assert ended_early((3, 0), "hello", STOP, finish_reason="stop")[0].verdict is VALID


def single(route: Route, choice: Choice, name: str = "one", **sampling: Any) -> list[Entry]:
    request = Request(f"{name}-{route}", (1, 2), Sampling(8, **sampling), route=route)
    return [
        Sent(0.0, request, "s", "p", 0.0),
        Ended(1.0, request.request_id, Outcome.OK, status=200, choices=(choice,)),
    ]


def test_a_text_that_goes_on_after_a_stop_string_is_wrong() -> None:
    history = with_sampling(run(gaussian(1e-6)), VICTIM, stop=("lo",))
    (choice,) = next(entry.choices for entry in history.of(Ended) if entry.request_id == VICTIM)
    assert count_outputs(with_end(history, VICTIM, choices=(replace(choice, text="hello world"),))).mismatch == 1


def test_end_tokens_are_also_learned_from_answers_without_transfer() -> None:
    direct = single(Route.PREFILL, Choice((5, 9), finish_reason="stop"))
    proxied = single(Route.PROXY, Choice((5, 8), finish_reason="stop"))
    by_text = single(Route.DECODE, Choice((5, 7), finish_reason="stop"), stop=("a",))
    ends = known_end_tokens(History((*direct, *proxied, *by_text)))
    assert (ends.tokens, ends.complete) == (frozenset({9}), False)


def ended_alone(*lasts: int) -> list[Entry]:
    """Answers to different prompts, each ended by the decode server alone with one of these tokens."""
    stopped = (Choice((5, last), finish_reason="stop") for last in lasts)
    return [entry for n, one in enumerate(stopped) for entry in single(Route.DECODE, one, f"prompt-{n}")]


def test_end_tokens_are_not_learned_from_truncated_control_answers() -> None:
    known = Decoding(0.0, (2,))
    assert known_end_tokens(History((known, *ended_alone(9)))).tokens == {2}
    assert not known_end_tokens(History(tuple(ended_alone(7, 8, 9)))).tokens


def test_a_token_that_ended_the_answers_to_several_prompts_is_an_end_token() -> None:
    known = Decoding(0.0, (2,))
    assert known_end_tokens(History((known, *ended_alone(9, 9)))).tokens == {2, 9}
    assert known_end_tokens(History(tuple(ended_alone(6, 7, 8, 9, 9)))).tokens == {9}


def test_a_token_after_which_an_answer_went_on_is_no_end_token() -> None:
    went_on = single(Route.PROXY, Choice((9, 5), finish_reason="stop"))
    asked_to = single(Route.PROXY, Choice((9, 5), finish_reason="length"), ignore_eos=True)
    assert known_end_tokens(History((*ended_alone(9, 9), *went_on))).tokens == set()
    assert known_end_tokens(History((*ended_alone(9, 9), *asked_to))).tokens == {9}


def test_a_truncated_retry_is_wrong_again() -> None:
    entries = list[Entry]()
    for entry in run(gaussian(1e-6)).entries:
        if isinstance(entry, Sent) and entry.request.request_id == VICTIM:
            retry = replace(entry.request, purpose=Purpose.RETRY, about="load-16", condition=Condition.ALONE)
            entries.append(replace(entry, request=retry))
        elif isinstance(entry, Ended) and entry.request_id in (VICTIM, "load-16"):
            entries.append(replace(entry, choices=(replace(entry.choices[0], finish_reason="stop"),)))
        else:
            entries.append(entry)
    history = History((Decoding(0.0, (3,)), *entries))
    for name in (VICTIM, "load-16"):
        history = with_sampling(history, name, max_tokens=TOKENS + 1)
    check = outputs(DEPLOYMENT, history)
    (finding,) = check.findings
    assert finding.subject == "load-16"
    assert "wrong again in 1 of 1 retries alone" in finding.text


def test_guessed_special_tokens_are_no_end_tokens() -> None:
    guessed = replace(DEPLOYMENT, special_token_ids=(1, 2), vocab_is_whole=False)
    assert guessed.end_token_ids == ()
    assert replace(guessed, vocab_is_whole=True).end_token_ids == (1, 2)


@pytest.mark.parametrize("stop_reason", [None, 9, "lo"])
def test_the_reason_to_stop_is_read_from_both_endpoints(stop_reason: int | str | None) -> None:
    chunks = (
        wire.completion_chunk([9], finish="stop", stop_reason=stop_reason),
        wire.chat_chunk([9], finish="stop", stop_reason=stop_reason),
    )
    for chunk in chunks:
        answer = Answer()
        answer.event(json.dumps(chunk).encode(), 1.0)
        assert answer.choices == (Choice((9,), "", "stop", (), stop_reason),)


def test_the_texts_of_the_last_tokens_of_a_forced_prompt_are_kept() -> None:
    rows: list[Any] = [
        None,
        *({str(n): {"logprob": -1.0, "rank": 1, "decoded_token": chr(97 + n % 26)}} for n in range(40)),
    ]
    answer = Answer()
    choice = {"index": 0, "text": "a", "token_ids": [1], "prompt_logprobs": rows, "finish_reason": "length"}
    answer.body(json.dumps(wire.completion_body([choice], {})).encode(), 1.0)
    assert "".join(answer.prompt_end) == "".join(chr(97 + n % 26) for n in range(8, 40))
