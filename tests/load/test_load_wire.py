"""The messages that the other tests use are vLLM's: its classes read them, and its code writes the same format."""

import json
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import load_wire as wire
import pytest

from harness.history import TokenLogprob
from harness.load.answers.logprobs import read_rows
from harness.load.body import with_extra
from harness.scenario import Endpoint, Message, Request, Sampling

pytestmark = pytest.mark.live

FULL = Sampling(4, 2, ignore_eos=True, n=2, stop=("x",), logprobs=2, prompt_logprobs=0, echo=False)


@pytest.fixture(scope="module")
def vllm() -> Any:
    """The parts of vLLM that write answers and read requests."""
    chat = pytest.importorskip("vllm.entrypoints.openai.chat_completion.protocol")
    chat_serving = pytest.importorskip("vllm.entrypoints.openai.chat_completion.serving")
    completion = pytest.importorskip("vllm.entrypoints.openai.completion.protocol")
    serving = pytest.importorskip("vllm.entrypoints.openai.completion.serving")
    return SimpleNamespace(
        chat=chat,
        completion=completion,
        writer=serving.OpenAIServingCompletion,
        chat_writer=chat_serving.OpenAIServingChat,
        logprobs=pytest.importorskip("vllm.logprobs"),
    )


def unknown_fields(model: Any) -> set[str]:
    """Fields that vLLM's class does not know: it keeps them as extra fields."""
    return set(model.model_extra or ())


def test_vllm_knows_every_field_of_the_stream_chunks(vllm: Any) -> None:
    rows = wire.completion_logprobs((11, -0.5, {11: -0.5, 40: -1.0}))
    for message in (wire.completion_chunk([11], prompt_token_ids=[1], logprobs=rows), wire.usage(1, 1)):
        chunk = vllm.completion.CompletionStreamResponse.model_validate(message)
        assert not unknown_fields(chunk)
        assert not any(unknown_fields(choice) for choice in chunk.choices)
    rows = wire.chat_logprobs((11, -0.5, {11: -0.5}), (12, None, {}))
    for message in (wire.chat_role_chunk([1, 2]), wire.chat_chunk([11], text="a", finish="stop", logprobs=rows)):
        chunk = vllm.chat.ChatCompletionStreamResponse.model_validate(message)
        assert not unknown_fields(chunk)
        assert not any(unknown_fields(choice) or unknown_fields(choice.delta) for choice in chunk.choices)


@pytest.mark.parametrize("stream", [True, False])
def test_vllm_knows_every_field_of_our_bodies(vllm: Any, *, stream: bool) -> None:
    completion = with_extra(Request("r", (1, 2), FULL, stream=stream, cache_salt="s"), model="m", extra={})
    chat_request = Request("r", (Message("user", "x"),), FULL, endpoint=Endpoint.CHAT, stream=stream, cache_salt="s")
    read = vllm.completion.CompletionRequest.model_validate(completion)
    assert not unknown_fields(read)
    assert (read.return_token_ids, read.logprobs, read.cache_salt, read.prompt) == (True, 2, "s", [1, 2])
    chat = vllm.chat.ChatCompletionRequest.model_validate(with_extra(chat_request, model="m", extra={}))
    assert not unknown_fields(chat)
    assert (chat.return_token_ids, chat.logprobs, chat.top_logprobs, chat.max_completion_tokens) == (True, True, 2, 4)


def steps(vllm: Any, alternatives: int) -> list[Any]:
    """The engine's log-probabilities for greedy tokens 11 and 12; the second is NaN."""
    written: list[Any] = []
    for token, runner_up, logprob in ((11, 40, -0.5), (12, 41, float("nan"))):
        ids, values = [token, token, runner_up], [logprob, logprob, -2.0]
        columns = slice(0, alternatives + 1)
        vllm.logprobs.append_logprobs_for_next_position(
            written, ids[columns], values[columns], [None] * 3, 1, alternatives
        )
    return written


def written_by(vllm: Any, write: str, alternatives: int) -> Any:
    """The JSON of one of vLLM's two writers, run without a server."""
    server = SimpleNamespace(return_tokens_as_token_ids=True, _get_decoded_token=vllm.writer._get_decoded_token)
    server._get_top_logprobs = partial(vllm.chat_writer._get_top_logprobs, server)
    completions, chat = vllm.writer._create_completion_logprobs, vllm.chat_writer._create_chat_logprobs
    writer = completions if write == "completions" else chat
    written = writer(server, [11, 12], steps(vllm, alternatives), tokenizer=None, num_output_top_logprobs=alternatives)
    return json.loads(written.model_dump_json(exclude_unset=True))


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize(("alternatives", "runner_up"), [(1, None), (2, -2.0)])
def test_vllms_log_probabilities_are_read_and_a_runner_up_needs_two_alternatives(
    vllm: Any, endpoint: str, alternatives: int, runner_up: float | None
) -> None:
    rows = read_rows(written_by(vllm, endpoint, alternatives))
    assert [row.token_id for row in rows] == [11, 12]
    first, second = (row.of(0 if row.token_id is None else row.token_id) for row in rows)
    assert first == TokenLogprob(11, -0.5, runner_up, None if runner_up is None else 40)
    assert (second.token_id, second.runner_up) == (12, runner_up)
    assert math.isnan(second.logprob)
