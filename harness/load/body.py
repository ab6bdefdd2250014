"""A request as the JSON body that vLLM's OpenAI endpoints take. Pure.

Every body asks for ``return_token_ids``: outputs are compared as ids, because different tokens can decode to the
same text. Whoever asks for log-probabilities gets ids there too (``return_tokens_as_token_ids``). And every body says
that there is no penalty and no cut of the candidates: where it is silent, a server takes what the model ships
(generation_config.json), and its answers are not the best tokens any more.
"""

import json
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError
from harness.load.extra_body import NEUTRAL
from harness.scenario import Endpoint, Message, Request, Sampling

Json = dict[str, Any]


def encode(request: Request, *, model: str, extra: Mapping[str, Any] | None = None) -> bytes:
    """The body's bytes."""
    return json.dumps(with_extra(request, model=model, extra=extra or {}), separators=(",", ":")).encode()


def with_extra(request: Request, *, model: str, extra: Mapping[str, Any]) -> Json:
    """The body, with the user's own fields over the neutral ones and under all others.

    What they must not replace ``harness.load.extra_body.checked`` refuses: the history stores the request as sent.
    """
    return {**NEUTRAL, **extra, **_asked(request, model=model)}


def body_of(request: Request, *, model: str) -> Json:
    """The body without anybody's extra fields.

    Raises UsageError for token ids sent to the chat endpoint and for a conversation sent to the other one.
    """
    return with_extra(request, model=model, extra={})


def _asked(request: Request, *, model: str) -> Json:
    """What the request itself says; fields that are None are left out."""
    chat = request.endpoint is Endpoint.CHAT
    fields = {
        "model": model,
        **(_messages(request) if chat else _prompt(request)),
        **_sampling(request.sampling),
        **(_chat_limits(request.sampling) if chat else _completion_limits(request.sampling)),
        "cache_salt": request.cache_salt,
        "return_token_ids": True,
        "stream": request.stream,
        # vLLM refuses stream options for an answer that is not streamed.
        "stream_options": {"include_usage": True} if request.stream else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


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
            f"Request {request.request_id} sends a conversation to {request.endpoint}, which takes token ids or text: "
            f"send it to {Endpoint.CHAT}."
        )
    return {"prompt": request.prompt}


def _messages(request: Request) -> Json:
    if isinstance(request.prompt, str):
        return {"messages": [{"role": "user", "content": request.prompt}]}
    if not _is_conversation(request):
        raise UsageError(
            f"Request {request.request_id} sends token ids to {request.endpoint}, which takes messages: "
            f"send it to {Endpoint.COMPLETIONS}."
        )
    turns = (turn for turn in request.prompt if isinstance(turn, Message))
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in turns]}


def _is_conversation(request: Request) -> bool:
    return not isinstance(request.prompt, str) and any(isinstance(turn, Message) for turn in request.prompt)
