"""The answer of ``bench.stub``: one stream as vLLM writes it, cut into writes. Pure."""

import json
from itertools import pairwise
from typing import Any

Json = dict[str, Any]

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_WORD = " word"
_BYTES = list(_WORD.encode())
_LOGPROB = -0.123456789


def stream(tokens: int, pieces: int, logprobs: int, prompt: int, *, chat: bool = False) -> list[bytes]:
    """The bytes of each write: the status line with the first piece, the end with the last one."""
    chunks = [(_chat_chunk if chat else _chunk)(n, tokens, logprobs, prompt) for n in range(tokens)]
    events = [_event(one) for one in chunks]
    if chat:
        events[0] = _event(_role_chunk(prompt)) + events[0]
    counts = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    end = _event({**chunks[0], "choices": [], "usage": counts}) + _http(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    bounds = [tokens * piece // pieces for piece in range(pieces + 1)]
    writes = [b"".join(events[start:stop]) for start, stop in pairwise(bounds)]
    writes[0] = _HEAD + writes[0]
    writes[-1] += end
    return writes


def _chunk(number: int, tokens: int, logprobs: int, prompt: int) -> Json:
    """One event of a completion, as vLLM 0.32 writes it."""
    token = 1000 + number
    choice = {
        "index": 0,
        "text": _WORD,
        "logprobs": _rows(number, token, logprobs) if logprobs else None,
        "finish_reason": "length" if number == tokens - 1 else None,
        "stop_reason": None,
        "prompt_token_ids": None if number else list(range(prompt)),
        "token_ids": [token],
    }
    name = "cmpl-00000000-0000-0000-0000-000000000001"
    return {"id": name, "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def _rows(number: int, token: int, logprobs: int) -> Json:
    return {
        "text_offset": [number * len(_WORD)],
        "token_logprobs": [_LOGPROB],
        "tokens": [f"token_id:{token}"],
        "top_logprobs": [{f"token_id:{token + rank}": _LOGPROB - 1.7 * rank for rank in range(logprobs)}],
    }


def _role_chunk(prompt: int) -> Json:
    """The event with which vLLM 0.32 begins a chat."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    return {**_chat(choice), "prompt_token_ids": list(range(prompt)), "prompt_text": None}


def _chat_chunk(number: int, tokens: int, logprobs: int, _prompt: int) -> Json:
    """One event of a chat, as vLLM 0.32 writes it."""
    token = 1000 + number
    last = number == tokens - 1
    return _chat(
        {
            "index": 0,
            "delta": {"content": _WORD},
            "logprobs": _chat_rows(token, logprobs) if logprobs else None,
            "finish_reason": "length" if last else None,
            **({"stop_reason": None} if last else {}),
            "token_ids": [token],
        }
    )


def _chat(choice: Json) -> Json:
    name = "chatcmpl-00000000-0000-0000-0000-000000000001"
    return {"id": name, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _chat_rows(token: int, logprobs: int) -> Json:
    named = [(f"token_id:{token + rank}", _LOGPROB - 1.7 * rank) for rank in range(logprobs)]
    tops = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in named]
    return {"content": [{**tops[0], "bytes": _BYTES, "top_logprobs": tops}]}


def _event(message: Json) -> bytes:
    return _http(b"data: %b\n\n" % json.dumps(message, separators=(",", ":")).encode())


def _http(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)
