"""A load from a JSONL file, one request per line: the format of ``vllm bench serve --dataset-name custom``, extended.

    {"prompt": "Tell me about rivers.", "output_tokens": 40}
    {"prompt": [17, 4, 93], "output_tokens": 20, "request_id": "load-00007", "ignore_eos": true}

``prompt`` is text or a list of token ids; ``messages`` instead of it makes a chat. ``output_tokens`` (or
``max_tokens``) limits the answer's tokens. Optional keys: ``request_id``; ``min_tokens``, ``ignore_eos``, ``stop``,
``temperature``, ``seed``, ``n`` and ``stream``, as in the API; ``cache_salt``: prompts with different salts share no
cached prefix; ``phase``: the lines of one phase are sent together, the next phase when they have ended; ``route``
(``prefill``, ``decode``): sends the request to such a server directly instead of to the proxy; ``continues``: the
request_id of an earlier line, whose prompt and answer are put before this prompt when that one has ended (a session);
``at``: seconds after the beginning of the phase at which the request is sent, for all lines of the phase but the later
turns of sessions, never falling. Such a phase is an open loop: no limit of requests in flight holds it up. Other keys
are ignored.

Missing keys have their defaults. A written file reads back as the same requests.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.dataset_line import Line, line_as_json, read_line
from harness.loads.demand import Demand
from harness.loads.reading import read_dataset
from harness.loads.timing import TimedLoad
from harness.scenario import Phase, Request, Sampling, Scenario

__all__ = ["DatasetLoad", "Line", "dataset_load", "read_lines", "salted", "write_lines"]

NAME = "dataset"
"""Name of the scenario."""
_OUTPUT = Sampling().max_tokens
_PURPOSE = "Wrong answers to given requests: a load of the user's own, or the requests to which a run was shrunk."
_FORM = '{"prompt": "text, or a list of token ids", "output_tokens": 20}'


@dataclass(frozen=True, kw_only=True)
class DatasetLoad(TimedLoad):
    """Requests from a JSONL file (:mod:`harness.loads.dataset` describes a line). The file is read at its first use."""

    path: Path
    num_prompts: int | None = None
    """Lines taken from the beginning of the file; None: all."""
    output_len: int | None = None
    """Most tokens of an answer, for lines without a limit."""
    ignore_eos: bool = False
    """Whether each answer reaches its limit, even if the model ends it earlier, also where a line does not say so."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return NAME

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The file's requests. Raises UsageError."""
        text = read_dataset(self.path, "JSONL")
        lines = read_lines(text, str(self.path), output_len=self.output_len)[: self.num_prompts]
        return tuple(map(_ignoring_eos, lines)) if self.ignore_eos else lines

    def demands(self) -> Sequence[Demand]:
        """What each request needs of a server. Raises UsageError if the file cannot be read."""
        return tuple(_demand(line, f"{self.path}, line {line.number}") for line in self.lines)

    def scenario(self, _deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run."""
        scenario = dataset_load(self.lines, concurrency=self.concurrency or len(self.lines), salt=salt)
        if self.arrival is not None and len(scenario.phases) > 1:
            raise UsageError(
                f"{self.path} has {len(scenario.phases)} phases, each of which begins when the one before has ended, "
                "so its requests cannot be sent at a rate: remove the key phase, or send them in a closed loop."
            )
        return replace(scenario, phases=tuple(map(self._timed, scenario.phases)))

    def _timed(self, phase: Phase) -> Phase:
        """The phase with the load's timing, or with its own times."""
        timed = self.phase(phase.name, phase.requests, due=phase.due)
        own = phase.due and self.arrival is None
        return replace(timed, concurrency=phase.concurrency) if own else timed

    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this load."""
        yield from ("--dataset-path", str(self.path), *self.timing_words())
        yield from ("--num-prompts", str(self.num_prompts)) if self.num_prompts is not None else ()
        yield from ("--custom-output-len", str(self.output_len)) if self.output_len is not None else ()
        yield from ["--ignore-eos"] if self.ignore_eos else []


def _ignoring_eos(line: Line) -> Line:
    request = line.request
    return replace(line, request=replace(request, sampling=replace(request.sampling, ignore_eos=True)))


def _demand(line: Line, source: str) -> Demand:
    tokens = [token for token in line.request.prompt if isinstance(token, int)]
    return Demand(source, len(tokens) or None, line.request.sampling.max_tokens, max(tokens, default=None))


def read_lines(text: str, name: str, *, output_len: int | None = None) -> tuple[Line, ...]:
    """The requests in the text of a file called ``name``. ``output_len``: output tokens of lines without a limit.

    Raises UsageError if a line is no valid request (the message has the line's number), or the file has no request.
    """
    lines: list[Line] = []
    seen: dict[str, int] = {}
    continued: dict[str, int] = {}
    for number, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            usual = _OUTPUT if output_len is None else output_len
            line = replace(read_line(json.loads(content), f"load-{len(lines):05d}", usual), number=number)
            _refuse_twice(line.request.request_id, seen, number)
            _refuse_no_session(line.request, seen, continued, number)
        except ValueError as error:
            why = f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UsageError(f"{name}, line {number}: {why}. Each line is one request: {_FORM}.") from None
        lines.append(line)
    try:
        for _, group in groupby(lines, key=lambda line: line.phase):
            _refuse_untimely(list(group))
    except ValueError as error:
        raise UsageError(f"{name}, {error}.") from None
    if not lines:
        raise UsageError(f"{name} holds no request. Write one request per line: {_FORM}.")
    return tuple(lines)


def write_lines(lines: Iterable[Line]) -> str:
    """The text of a file that reads back as these lines."""
    return "".join(json.dumps(line_as_json(line)) + "\n" for line in lines)


def dataset_load(lines: Sequence[Line], *, concurrency: int, salt: str) -> Scenario:
    """The scenario of these lines. ``salt``: new for each run; a line's own salt is appended to it."""
    phases: list[Phase] = []
    for index, (name, grouped) in enumerate(groupby(lines, key=lambda line: line.phase)):
        group = tuple(grouped)
        requests = tuple(replace(line.request, cache_salt=salted(line.request, salt)) for line in group)
        again = name in [phase.name for phase in phases]
        due = tuple(at for line in group if (at := line.at) is not None)
        limit = len(requests) if due else concurrency
        phases.append(Phase(f"{name}#{index}" if again else name, requests, limit, due=due))
    return Scenario(NAME, _PURPOSE, tuple(phases))


def salted(request: Request, salt: str) -> str:
    """The request's salt within a run: equal salts stay equal, and no earlier run's blocks are hit."""
    return f"{salt}-{request.cache_salt}" if request.cache_salt else salt


def _refuse_twice(request_id: str, seen: dict[str, int], number: int) -> None:
    if (first := seen.setdefault(request_id, number)) != number:
        raise ValueError(f"line {first} has the request_id {request_id!r}, too")


def _refuse_no_session(request: Request, seen: Mapping[str, int], continued: dict[str, int], number: int) -> None:
    before = request.continues
    if before is None:
        return
    if before not in seen or before == request.request_id:
        raise ValueError(f"it continues {before!r}, but no line before has this request_id")
    if (first := continued.setdefault(before, number)) != number:
        raise ValueError(f"it continues {before!r}, but so does line {first}: a turn has one next turn")


def _refuse_untimely(lines: Sequence[Line]) -> None:
    """Raise ValueError if only some of the lines of a phase have a time, or one is earlier than the one before."""
    within = {line.request.request_id for line in lines}
    latest = 0.0
    for line in lines:
        turn = line.request.continues in within
        if line.at is None and not turn and any(other.at is not None for other in lines):
            raise ValueError(f"line {line.number}: other lines of its phase have the key at, and it has none")
        if line.at is not None and turn:
            raise ValueError(f"line {line.number}: it continues a line of its phase, so it cannot have the key at")
        if line.at is not None and line.at < latest:
            raise ValueError(f"line {line.number}: its at is earlier than that of the line before: sort the lines")
        latest = latest if line.at is None else line.at
