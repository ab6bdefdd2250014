"""Writes a request as the JSON body for vLLM's OpenAI endpoints. Pure.

Every body sets ``return_token_ids``: outputs are compared as ids, because different tokens can decode to the same text.
A request for log-probabilities gets ids there too (``return_tokens_as_token_ids``). Every body also sets neutral
penalties and no limit on the candidate tokens: a server fills absent fields from the model's generation_config.json,
and then no longer answers with the best tokens.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from harness.errors import UsageError
from harness.load.extra_body import NEUTRAL
from harness.scenario import Endpoint, Message, Request, Sampling

Json = dict[str, Any]


def encode(request: Request, *, model: str, extra: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of the body."""
    body = with_extra(request, model=model, extra=extra or {})
    # msgspec takes a tenth of the time, but writes NaN, which only the user's fields can hold, as null.
    if not extra:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError, OverflowError, TypeError, RecursionError):
            return msgspec.json.encode(body)
    return json.dumps(body, separators=(",", ":")).encode()


def with_extra(request: Request, *, model: str, extra: Mapping[str, Any]) -> Json:
    """The body with the user's extra fields, which replace the neutral fields and no others.

    ``harness.load.extra_body.checked`` refuses extra fields that would change the request stored in the history.

    Raises UsageError for token ids sent to the chat endpoint and for a conversation sent to the completions endpoint.
    """
    return {**NEUTRAL, **extra, **_request_fields(request, model=model)}


def _request_fields(request: Request, *, model: str) -> Json:
    """The fields that the request itself sets; fields that are None are left out."""
    chat = request.endpoint is Endpoint.CHAT
    fields = {
        "model": model,
        **(_messages(request) if chat else _prompt(request)),
        **_sampling(request.sampling),
        **(_chat_limits(request.sampling) if chat else _completion_limits(request.sampling)),
        "cache_salt": request.cache_salt,
        "kv_transfer_params": _transfer(request),
        "return_token_ids": True,
        "stream": request.stream,
        # vLLM refuses stream options for an answer that is not streamed.
        "stream_options": {"include_usage": True} if request.stream else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


_HOLD: Json = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_request_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""Asks a prefill server to hold a prompt's KV, as the proxy does (harness.proxy.contract)."""


def _transfer(request: Request) -> Any:
    if request.holds:
        return _HOLD
    return None if request.reference is None else json.loads(request.reference)


def _sampling(sampling: Sampling) -> Json:
    return {
        "temperature": sampling.temperature,
        "min_tokens": sampling.min_tokens,
        "ignore_eos": sampling.ignore_eos or None,
        "seed": sampling.seed,
        "n": sampling.n,
        "stop": sampling.stop,
        "prompt_logprobs": sampling.prompt_logprobs,
        "echo": sampling.echo,
        "return_tokens_as_token_ids": None if sampling.logprobs is None else True,
    }


def _completion_limits(sampling: Sampling) -> Json:
    return {"max_tokens": sampling.max_tokens, "logprobs": sampling.logprobs}


def _chat_limits(sampling: Sampling) -> Json:
    return {
        "max_completion_tokens": sampling.max_tokens,
        "logprobs": None if sampling.logprobs is None else True,
        "top_logprobs": sampling.logprobs,
    }


def _prompt(request: Request) -> Json:
    if _is_conversation(request):
        raise UsageError(
            f"Request {request.request_id} sends a conversation to {request.endpoint}, which takes token ids or text. "
            f"Send it to {Endpoint.CHAT}."
        )
    return {"prompt": request.prompt}


def _messages(request: Request) -> Json:
    if isinstance(request.prompt, str):
        return {"messages": [{"role": "user", "content": request.prompt}]}
    if not _is_conversation(request):
        raise UsageError(
            f"Request {request.request_id} sends token ids to {request.endpoint}, which takes messages. "
            f"Send it to {Endpoint.COMPLETIONS}."
        )
    turns = (turn for turn in request.prompt if isinstance(turn, Message))
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in turns]}


def _is_conversation(request: Request) -> bool:
    # A prompt holds token ids or messages, never both.
    return isinstance(next(iter(request.prompt), None), Message)
