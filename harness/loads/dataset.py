"""A load from a JSONL file, one request per line: the format of ``vllm bench serve --dataset-name custom``, extended.

    {"prompt": "Tell me about rivers.", "output_tokens": 40}
    {"prompt": [17, 4, 93], "output_tokens": 20, "request_id": "load-00007", "ignore_eos": true}

``prompt`` is text or a list of token ids; ``messages`` instead of it makes a chat. ``output_tokens`` (or
``max_tokens``) limits the answer's tokens. Optional keys: ``request_id``; ``min_tokens``, ``ignore_eos``, ``stop``,
``temperature``, ``seed``, ``n`` and ``stream``, as in the API; ``cache_salt``: prompts with different salts share no
cached prefix; ``phase``: the lines of one phase are sent together, the next phase when they have ended; ``route``
(``prefill``, ``decode``): sends the request to such a server directly instead of to the proxy. Other keys are ignored.

Missing keys have their defaults. A written file reads back as the same requests.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.scenario import LOAD_LOGPROBS, Endpoint, Message, Phase, Prompt, Request, Route, Sampling, Scenario

NAME = "dataset"
"""Name of the scenario."""
_PHASE = "load"
_OUTPUT = Sampling().max_tokens
_PURPOSE = "Wrong answers to given requests: a load of the user's own, or the requests to which a run was shrunk."
_SAMPLING = {"min_tokens": int, "ignore_eos": bool, "temperature": (int, float), "seed": int, "n": int}
_FORM = '{"prompt": "text, or a list of token ids", "output_tokens": 20}'


@dataclass(frozen=True, slots=True)
class Line:
    """The request of one line, and the phase in which it is sent."""

    request: Request
    phase: str = _PHASE
    number: int = field(default=0, compare=False)
    """Line number in the file, from 1; 0 if the line does not come from a file."""


@dataclass(frozen=True, kw_only=True)
class DatasetLoad:
    """Requests from a JSONL file (:mod:`harness.loads.dataset` describes a line). The file is read at its first use."""

    path: Path
    num_prompts: int | None = None
    """Lines taken from the beginning of the file; None: all."""
    output_len: int | None = None
    """Most tokens of an answer, for lines without a limit."""
    concurrency: int = 32
    """Requests in flight."""
    seed: int = 0
    """Decides which outputs and prefixes are verified."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return NAME

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The file's requests. Raises UsageError."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageError(f"--dataset-path {self.path} cannot be read: {why}. Name a JSONL file.") from None
        return read_lines(text, str(self.path), output_len=self.output_len)[: self.num_prompts]

    def demands(self) -> Sequence[Demand]:
        """What each request needs of a server. Raises UsageError if the file cannot be read."""
        return tuple(_demand(line, f"{self.path}, line {line.number}") for line in self.lines)

    def scenario(self, _deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run."""
        return dataset_load(self.lines, concurrency=self.concurrency, salt=salt)


def _demand(line: Line, source: str) -> Demand:
    tokens = [token for token in line.request.prompt if isinstance(token, int)]
    return Demand(source, len(tokens) or None, line.request.sampling.max_tokens, max(tokens, default=None))


def read_lines(text: str, name: str, *, output_len: int | None = None) -> tuple[Line, ...]:
    """The requests in the text of a file called ``name``. ``output_len``: output tokens of lines without a limit.

    Raises UsageError if a line is no valid request (the message has the line's number), or the file has no request.
    """
    lines: list[Line] = []
    seen: dict[str, int] = {}
    for number, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            usual = _OUTPUT if output_len is None else output_len
            line = replace(_line(json.loads(content), f"load-{len(lines):05d}", usual), number=number)
            _refuse_twice(line.request.request_id, seen, number)
        except ValueError as error:
            why = f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UsageError(f"{name}, line {number}: {why}. Each line is one request: {_FORM}.") from None
        lines.append(line)
    if not lines:
        raise UsageError(f"{name} holds no request. Write one request per line: {_FORM}.")
    return tuple(lines)


def write_lines(lines: Iterable[Line]) -> str:
    """The text of a file that reads back as these lines."""
    return "".join(json.dumps(_as_json(line)) + "\n" for line in lines)


def dataset_load(lines: Sequence[Line], *, concurrency: int, salt: str) -> Scenario:
    """The scenario of these lines. ``salt``: new for each run; a line's own salt is appended to it."""
    phases: list[Phase] = []
    for index, (name, group) in enumerate(groupby(lines, key=lambda line: line.phase)):
        requests = tuple(replace(line.request, cache_salt=salted(line.request, salt)) for line in group)
        again = name in [phase.name for phase in phases]
        phases.append(Phase(f"{name}#{index}" if again else name, requests, concurrency))
    return Scenario(NAME, _PURPOSE, tuple(phases))


def salted(request: Request, salt: str) -> str:
    """The request's salt within a run: equal salts stay equal, and no earlier run's blocks are hit."""
    return f"{salt}-{request.cache_salt}" if request.cache_salt else salt


# --- one line ---


def _refuse_twice(request_id: str, seen: dict[str, int], number: int) -> None:
    if (first := seen.setdefault(request_id, number)) != number:
        raise ValueError(f"line {first} has the request_id {request_id!r}, too")


def _line(content: object, request_id: str, output_len: int) -> Line:
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
    )
    return Line(request, _text(content, "phase", _PHASE))


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


def _as_json(line: Line) -> dict[str, Any]:
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
        "phase": (line.phase, _PHASE),
    }
    return content | {name: value for name, (value, usual) in optional.items() if value != usual}


def _turns(prompt: Prompt) -> Iterator[dict[str, str]]:
    if isinstance(prompt, str):
        yield {"role": "user", "content": prompt}
        return
    yield from ({"role": turn.role, "content": turn.content} for turn in prompt if isinstance(turn, Message))
