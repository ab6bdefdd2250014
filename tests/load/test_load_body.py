"""The fields of request bodies, as vLLM's request classes accept them."""

import json

import pytest

from harness.errors import UsageError
from harness.load.body import encode, with_extra
from harness.scenario import Endpoint, Message, Request, Sampling

IDS = (5, 6, 7)
NEUTRAL = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
}


def test_a_greedy_completion() -> None:
    assert with_extra(Request("r", IDS), model="m", extra={}) == {
        "model": "m",
        "prompt": IDS,
        "temperature": 0.0,
        "max_tokens": 20,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **NEUTRAL,
    }


def test_every_completion_field() -> None:
    sampling = Sampling(4, 2, ignore_eos=True, n=3, stop=("x",), logprobs=2, prompt_logprobs=0, echo=False)
    body = with_extra(Request("r", "text", sampling, stream=False, cache_salt="s"), model="m", extra={})
    assert body == {
        "model": "m",
        "prompt": "text",
        "temperature": 0.0,
        "max_tokens": 4,
        "min_tokens": 2,
        "ignore_eos": True,
        "n": 3,
        "stop": ("x",),
        "logprobs": 2,
        "prompt_logprobs": 0,
        "echo": False,
        "cache_salt": "s",
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "stream": False,
        **NEUTRAL,
    }


def test_chat_has_its_own_names_for_limits() -> None:
    conversation = (Message("system", "be brief"), Message("user", "hello"))
    request = Request("r", conversation, Sampling(5, logprobs=2), endpoint=Endpoint.CHAT)
    body = with_extra(request, model="m", extra={})
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert (body["max_completion_tokens"], body["logprobs"], body["top_logprobs"]) == (5, True, 2)
    assert not {"prompt", "max_tokens"} & set(body)


def test_text_sent_to_chat_becomes_a_message_of_the_user() -> None:
    body = with_extra(Request("r", "hello", endpoint=Endpoint.CHAT), model="m", extra={})
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert not {"logprobs", "top_logprobs", "return_tokens_as_token_ids"} & set(body)


@pytest.mark.parametrize("request_", [Request("r", IDS, endpoint=Endpoint.CHAT), Request("r", (Message("user", "x"),))])
def test_a_prompt_of_the_wrong_kind_is_refused(request_: Request) -> None:
    with pytest.raises(UsageError, match="Send it to"):
        with_extra(request_, model="m", extra={})


def test_extra_fields_do_not_replace_the_requests_own() -> None:
    body = json.loads(encode(Request("r", IDS), model="m", extra={"top_k": 1, "max_tokens": 999}))
    assert (body["top_k"], body["max_tokens"], body["prompt"]) == (1, 20, [5, 6, 7])
