"""Deviations of gateways in streams: harmless ones are ignored, others are reported in the server's own words."""

import json
from dataclasses import replace

import counted_run as run
import load_wire as wire
import pytest
from load_wire import ask

from harness.checkers.completion import completion
from harness.history import Choice, Ending, Outcome, Usage
from harness.verdict import Verdict
from harness.verify.judging import outputs

WHOLE = wire.whole_stream()
BARE_USAGE = {"usage": {"prompt_tokens": 3, "completion_tokens": 3}}
ANSWER = wire.completion_body(
    [{"index": 0, "text": "abc", "logprobs": None, "finish_reason": "length", "token_ids": [11, 12, 13]}], BARE_USAGE
)
FAILED = {"error": {"message": "KV transfer timed out on decode-1", "code": 500}}


def without(piece: bytes, *fields: str) -> bytes:
    """The stream whose choices lack these fields."""
    events = []
    for event in piece.split(b"\n\n")[:-1]:
        if event != b"data: [DONE]":
            message = json.loads(event[6:])
            message["choices"] = [{k: v for k, v in c.items() if k not in fields} for c in message["choices"]]
            event = b"data: " + json.dumps(message).encode()  # noqa: PLW2901 - the same event, changed
        events.append(event)
    return b"\n\n".join(events) + b"\n\n"


@pytest.mark.parametrize(
    "stream",
    [
        WHOLE + wire.DONE,
        WHOLE + wire.DONE + wire.DONE,
        WHOLE.replace(b"[DONE]", b"[DONE] "),
        WHOLE + b"\n",
        WHOLE + b"\n\n\r\n \n",
        WHOLE + wire.KEEP_ALIVE,
        wire.KEEP_ALIVE + wire.KEEP_ALIVE + WHOLE,
        WHOLE + b"data: \n\n",
        WHOLE + b"data:\n\ndata\n\n",
        WHOLE + wire.sse(BARE_USAGE),
        WHOLE + wire.sse(wire.usage(3, 3)),
        wire.KEEP_ALIVE + b"data:\n\n" + WHOLE,
        b"\xef\xbb\xbf" + WHOLE,
        WHOLE.replace(b'"choices": [], ', b'"choices": null, '),
        WHOLE.replace(b'"choices": [], ', b""),
        wire.sse({"choices": []}) + WHOLE,
        wire.sse({"choices": None}) + WHOLE,
        WHOLE.replace(b"\n\n", b"\r\n\r\n"),
        b"event: message\nid: 1\nretry: 5\n" + WHOLE,
    ],
)
async def test_a_deviation_that_loses_no_token_is_ignored(stream: bytes) -> None:
    ended = await ask(wire.streams(stream))
    assert (ended.outcome, ended.cause, ended.usage) == (Outcome.OK, "", Usage(3, 3))
    assert ended.choices[0].token_ids == (11, 12, 13)


async def test_a_large_header_is_accepted() -> None:
    ended = await ask(wire.streams(WHOLE, headers={"X-Trace": "a" * 9000}))
    assert (ended.outcome, ended.cause) == (Outcome.OK, "")


@pytest.mark.parametrize("tail", [wire.completion_chunk([14]), {"object": "list"}])
async def test_an_event_after_the_end_marker_is_a_fault(tail: wire.Json) -> None:
    ended = await ask(wire.streams(WHOLE + wire.sse(tail)))
    assert ended.ending is Ending.UNFINISHED
    assert "an event follows the end marker" in ended.cause


async def test_a_whole_answer_instead_of_a_stream_is_read_without_token_times() -> None:
    ended = await ask(wire.answers(200, ANSWER))
    assert (ended.outcome, ended.ending) == (Outcome.OK, Ending.COMPLETED)
    assert ended.choices == (Choice((11, 12, 13), "abc", "length"),)
    assert (ended.token_times, ended.tokens_per_chunk) == ((), ())


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/problem+json"])
async def test_a_stream_with_the_content_type_json_is_read_as_a_stream(content_type: str) -> None:
    ended = await ask(wire.streams(WHOLE, headers={"Content-Type": content_type}))
    assert (ended.outcome, len(ended.token_times)) == (Outcome.OK, 3)


@pytest.mark.parametrize(
    "script",
    [
        wire.answers(200, FAILED),
        wire.answers(200, {"detail": "KV transfer timed out on decode-1"}),
        wire.answers(200, {"object": "error", "message": "KV transfer timed out on decode-1"}),
        wire.streams(wire.sse(FAILED)),
        wire.streams(b"event: error\n" + wire.sse(FAILED) + wire.DONE),
        wire.streams(json.dumps(FAILED).encode()),
        wire.streams(json.dumps(FAILED).encode() + b"\n\n"),
        wire.streams(WHOLE + wire.sse(FAILED)),
        wire.streams(json.dumps(FAILED).encode(), headers={"Content-Type": "text/plain"}),
    ],
)
async def test_an_error_instead_of_an_answer_is_quoted(script: wire.Script) -> None:
    ended = await ask(script)
    assert (ended.outcome, ended.ending, ended.status) == (Outcome.INFO, Ending.ERROR_INSIDE, 200)
    assert "KV transfer timed out on decode-1" in ended.cause


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            wire.streams(b"<html>\n<h1>Bad Gateway</h1>\n\n</html>", headers={"Content-Type": "text/html"}),
            "<h1>Bad Gateway</h1>",
        ),
        (wire.answers(200, "upstream is gone"), "upstream is gone"),
        (wire.answers(200, "[1]"), "[1]"),
    ],
)
async def test_a_body_that_is_not_an_answer_is_quoted(script: wire.Script, words: str) -> None:
    ended = await ask(script)
    assert ended.ending is Ending.UNFINISHED
    assert words in ended.cause


async def test_an_answer_without_token_ids_is_whole_and_timed_by_its_text() -> None:
    ended = await ask(wire.streams(without(WHOLE, "token_ids", "prompt_token_ids", "logprobs")))
    assert (ended.outcome, ended.ending) == (Outcome.OK, Ending.COMPLETED)
    assert (ended.choices[0].token_ids, ended.choices[0].text) == ((), "abc")
    assert len(ended.token_times) == len(ended.tokens_per_chunk) == 3


async def test_an_answer_with_some_token_ids_missing_is_not_whole() -> None:
    first, rest = WHOLE.split(b"\n\n", 1)
    ended = await ask(wire.streams(without(first + b"\n\n", "token_ids") + rest))
    assert ended.ending is Ending.UNFINISHED
    assert "2 tokens arrived, but the server's usage counts 3" in ended.cause


def test_outputs_without_token_ids_are_unknown_and_no_check_is_invalid() -> None:
    operations = [
        entry
        for index in (0, 1)
        for entry in run.operation(
            replace(run.request(index)), choices=(Choice((), "abc", "length"),), usage=Usage(len(run.PROMPTS[index]), 5)
        )
    ]
    history = run.history(operations=operations)
    check = outputs(run.DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert "drop return_token_ids?" in check.summary
    assert completion(run.DEPLOYMENT, history).verdict is Verdict.VALID
