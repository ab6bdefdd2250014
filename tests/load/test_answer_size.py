"""How large an answer can be at most: wide enough for every real one, and narrow enough for a machine's memory."""

import json
from dataclasses import replace

import load_wire as wire
import pytest
from load_wire import REQUEST

from harness.load.answers.size import LARGEST_ANSWER, most_bytes
from harness.scenario import Message, Prompt, Request, Sampling

_ROW = [{"token": "token_id:151643", "logprob": -12.345678901234567, "bytes": [255] * 64, "rank": 151643}]


def asked(prompt: Prompt = (1, 2, 3), **sampling: int) -> Request:
    return replace(REQUEST, prompt=prompt, sampling=Sampling(**sampling))


@pytest.mark.parametrize("logprobs", [0, 5, 20])
def test_real_events_of_every_token_have_room(logprobs: int) -> None:
    event = len(wire.sse(wire.completion_chunk([151643], text="x" * 64))) + len(json.dumps(_ROW)) * (logprobs + 1)
    tokens = 100_000
    assert most_bytes(asked(max_tokens=tokens, logprobs=logprobs)) > event * tokens


def test_log_probabilities_of_a_long_prompt_have_room() -> None:
    tokens = 100_000
    needed = tokens * 3 * len(json.dumps({"151643": _ROW[0]}))
    assert most_bytes(asked((1,) * tokens, max_tokens=1, prompt_logprobs=2)) > needed
    assert most_bytes(asked((1,) * tokens, max_tokens=1, logprobs=2, echo=True)) > needed


@pytest.mark.parametrize("prompt", [(1,) * 4096, "a" * 4096, (Message("user", "a" * 4096),) * 8])
def test_an_ordinary_answer_is_bounded_by_a_few_megabytes(prompt: Prompt) -> None:
    assert most_bytes(asked(prompt, max_tokens=256, logprobs=5)) <= 32 << 20


def test_no_answer_may_be_larger_than_the_largest() -> None:
    assert most_bytes(asked((1,) * 100_000, max_tokens=1, prompt_logprobs=-1)) == LARGEST_ANSWER
    assert most_bytes(asked(max_tokens=10**9)) == LARGEST_ANSWER
