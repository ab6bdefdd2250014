"""One line of a dataset file: from JSON to a request, and back. :mod:`harness.loads.dataset` describes its keys."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from harness.scenario import LOAD_LOGPROBS, Endpoint, Message, Prompt, Request, Route, Sampling

_PHASE = "load"
_SAMPLING = {"min_tokens": int, "ignore_eos": bool, "temperature": (int, float), "seed": int, "n": int}


@dataclass(frozen=True, slots=True)
class Line:
    """The request of one line, and the phase in which it is sent."""

    request: Request
    phase: str = _PHASE
    at: float | None = None
    """Seconds after the phase's beginning at which the request is sent; None: as soon as the load allows."""
    number: int = field(default=0, compare=False)
    """Line number in the file, from 1; 0 if the line does not come from a file."""


def read_line(content: object, request_id: str, output_len: int) -> Line:
    """The request of a line's JSON; ``request_id`` and ``output_len`` are used if it has none. Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one type of error for every fault of a line
    prompt = _prompt(content)
    chat = "messages" in content
    request = Request(
        request_id=_text(content, "request_id", request_id),
        prompt=prompt,
        sampling=_sampling(content, output_len),
        route=_route(content),
        endpoint=Endpoint.CHAT if chat else Endpoint.COMPLETIONS,
        stream=_of_kind(content, "stream", bool, default=True),
        cache_salt=_text(content, "cache_salt", "") or None,
        continues=_text(content, "continues", "") or None,
    )
    return Line(request, _text(content, "phase", _PHASE), _time(content))


def _time(content: Mapping[str, Any]) -> float | None:
    at = content.get("at")
    if at is None:
        return None
    if type(at) not in (int, float) or not 0 <= at < math.inf:
        raise ValueError(f"its at is {at!r}, and must be a number of seconds, 0 or more")
    return float(at)


def _prompt(content: Mapping[str, Any]) -> Prompt:
    if ("prompt" in content) == ("messages" in content):
        raise ValueError('it needs either a "prompt" or "messages"')
    if "messages" in content:
        return _messages(content["messages"])
    prompt = content["prompt"]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return tuple(prompt)
    raise ValueError("its prompt must be a non-empty text or list of token ids")


def _messages(turns: object) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        raise ValueError("its messages must be a non-empty list")
    try:
        messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
    except (TypeError, KeyError):
        raise ValueError('a message needs "role" and "content"') from None
    if not all(isinstance(one.role, str) and isinstance(one.content, str) for one in messages):
        raise ValueError("the role and content of a message must be texts")
    return messages


def _sampling(content: Mapping[str, Any], output_len: int) -> Sampling:
    limit = content.get("output_tokens", content.get("max_tokens", output_len))
    # pandas may write 20.0 instead of 20.
    if type(limit) is float and limit.is_integer():
        limit = int(limit)
    if type(limit) is not int or limit < 1:
        raise ValueError(f"its output_tokens is {limit!r}, and must be a whole number of at least 1")
    chosen = {name: _of_kind(content, name, kind) for name, kind in _SAMPLING.items() if content.get(name) is not None}
    stop = content.get("stop")
    if stop is not None:
        chosen["stop"] = _stops(stop)
    return Sampling(max_tokens=limit, logprobs=LOAD_LOGPROBS, **chosen)


def _stops(stop: object) -> tuple[str, ...]:
    words = [stop] if isinstance(stop, str) else stop
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("its stop must be a text or a list of texts")
    return tuple(words)


def _route(content: Mapping[str, Any]) -> Route:
    name = _text(content, "route", Route.PROXY)
    known = [Route.PROXY, Route.PREFILL, Route.DECODE]
    if name not in known:
        raise ValueError(f"its route is {name!r}, and must be one of {', '.join(known)}")
    return Route(name)


def _text(content: Mapping[str, Any], name: str, default: str) -> str:
    value = content.get(name)
    # In many files identifiers are numbers.
    return default if value is None or value == "" else str(value)


def _of_kind(content: Mapping[str, Any], name: str, kind: Any, *, default: Any = None) -> Any:
    value = content.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"its {name} is {value!r}, which has the wrong type")
    return value


def line_as_json(line: Line) -> dict[str, Any]:
    """The JSON that reads back as the line."""
    request = line.request
    content: dict[str, Any] = {"request_id": request.request_id}
    if request.endpoint is Endpoint.CHAT:
        content["messages"] = list(_turns(request.prompt))
    else:
        content["prompt"] = request.prompt
    content["output_tokens"] = request.sampling.max_tokens
    default = Sampling()
    named = (*_SAMPLING, "stop")
    content |= {
        one.name: value
        for one in fields(Sampling)
        if one.name in named and (value := getattr(request.sampling, one.name)) != getattr(default, one.name)
    }
    optional = {
        "stream": (request.stream, True),
        "cache_salt": (request.cache_salt, None),
        "route": (request.route, Route.PROXY),
        "continues": (request.continues, None),
        "phase": (line.phase, _PHASE),
        "at": (line.at, None),
    }
    return content | {name: value for name, (value, usual) in optional.items() if value != usual}


def _turns(prompt: Prompt) -> Iterator[dict[str, str]]:
    if isinstance(prompt, str):
        yield {"role": "user", "content": prompt}
        return
    yield from ({"role": turn.role, "content": turn.content} for turn in prompt if isinstance(turn, Message))
