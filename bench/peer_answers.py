"""The answers of ``bench.peer_stub``: what each client asks for, in vLLM's form, cut into writes. Pure.

A client that asks for token ids gets them in every event, as from vLLM; the others get text alone. The number of the
stream stands in its response id, in the events of the first write only: clients keep the first id they see.
"""

import json
from enum import Enum
from itertools import pairwise

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
_STREAM = _HEAD % b"text/event-stream; charset=utf-8" + b"transfer-encoding: chunked\r\n\r\n"
_WORD = " word"
_NUMBER = b"%012d"
_UNNUMBERED = _NUMBER % 0

_METRICS = b"""\
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="32",num_gpu_blocks="4096",enable_prefix_caching="True",engine="0"} 1.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
"""
"""What the harness's whole command line needs before it sends a load."""


class Form(Enum):
    """What a stream's events hold."""

    IDS = "completion with token ids"
    TEXT = "completion"
    CHAT = "chat completion"


def form(path: bytes, body: bytes) -> Form:
    """What a request asks for."""
    if b"chat/completions" in path:
        return Form.CHAT
    return Form.IDS if b'"return_token_ids"' in body else Form.TEXT


def stream(kind: Form, tokens: int, pieces: int, prompt: int) -> list[bytes]:
    """The bytes of each write: the status line with the first piece, the end with the last one."""
    events = [_http(b"data: %b\n\n" % _json(_chunk(kind, n, tokens, prompt))) for n in range(tokens)]
    bounds = [tokens * piece // pieces for piece in range(pieces + 1)]
    writes = [b"".join(events[start:stop]) for start, stop in pairwise(bounds)]
    writes[0] = _STREAM + writes[0]
    writes[-1] += _end(kind, tokens, prompt)
    return writes


def sizes(tokens: int, pieces: int) -> list[int]:
    """Tokens in each write."""
    return [tokens * (piece + 1) // pieces - tokens * piece // pieces for piece in range(pieces)]


def numbered(first: bytes, number: int) -> bytes:
    """The first write of stream ``number``."""
    return first.replace(_UNNUMBERED, _NUMBER % number)


def number_of(response_id: str) -> int:
    """The stream that a response id belongs to."""
    return int(response_id.rpartition("-")[2])


def plain(path: bytes) -> bytes:
    """The answer to a GET: the list of models, metrics of an idle server, or an empty object (health)."""
    model = {"id": "m", "object": "model", "created": 1, "owned_by": "bench", "max_model_len": 4096}
    if path.startswith(b"/metrics"):
        return _whole(b"text/plain; version=0.0.4; charset=utf-8", _METRICS)
    return _whole(b"application/json", _json({"object": "list", "data": [model]} if b"/models" in path else {}))


def unstreamed(tokens: int, prompt: int) -> bytes:
    """The answer to a completion that is not to be streamed."""
    choice = {"index": 0, "text": _WORD * tokens, "logprobs": None, "finish_reason": "length", "stop_reason": None}
    choice |= {"prompt_token_ids": list(range(prompt)), "token_ids": [1000 + n for n in range(tokens)]}
    message = {**_heading(Form.IDS), "choices": [choice], "usage": _usage(tokens, prompt)}
    return _whole(b"application/json", _json(message))


def _usage(tokens: int, prompt: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _whole(kind: bytes, body: bytes) -> bytes:
    return _HEAD % kind + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(kind: Form, number: int, tokens: int, prompt: int) -> dict[str, object]:
    finish = "length" if number == tokens - 1 else None
    if kind is Form.CHAT:
        delta = {"content": _WORD} if number else {"role": "assistant", "content": _WORD}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**_heading(kind), "choices": [choice]}
    choice = {"index": 0, "text": _WORD, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    if kind is Form.IDS:
        choice |= {"prompt_token_ids": None if number else list(range(prompt)), "token_ids": [1000 + number]}
    return {**_heading(kind), "choices": [choice]}


def _heading(kind: Form) -> dict[str, object]:
    of = "chat.completion.chunk" if kind is Form.CHAT else "text_completion"
    return {"id": f"cmpl-0-{_UNNUMBERED.decode()}", "object": of, "created": 1, "model": "m"}


def _end(kind: Form, tokens: int, prompt: int) -> bytes:
    usage = {**_heading(kind), "choices": [], "usage": _usage(tokens, prompt)}
    return _http(b"data: %b\n\n" % _json(usage)) + _http(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _json(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _http(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)
