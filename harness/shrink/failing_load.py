"""The load of a stored run that failed, with the invalid checks and the requests that they name. Pure.

For a run of several workloads, this is the load of the first invalid workload. Requests of the verification are not
part of the load: they are made again for each try.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.checkers import judge_scenario
from harness.errors import UsageError
from harness.facts import Deployment
from harness.history import Ended, History, Operation, Sent
from harness.loads.dataset import Line, dataset_load
from harness.scenario import LOAD_LOGPROBS, Request, Sampling, Scenario
from harness.shrink.candidate import Candidate, Piece, PrefixLengths
from harness.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class FailingLoad:
    """A load that failed. Requests are numbered in the order in which they were due."""

    scenario: str
    checks: tuple[str, ...]
    """Names of the invalid checks."""
    lines: tuple[Line, ...]
    lengths: tuple[int, ...]
    """Tokens of each prompt; 1 if unknown."""
    concurrency: int
    """The largest number of requests in flight at a time."""
    accused: frozenset[int]
    """Requests that are named by findings of the invalid checks."""
    owners: frozenset[int]
    """Other requests whose KV was leaked, according to these findings."""
    overlapping: frozenset[int]
    """Requests that were in flight together with an accused one."""
    scheduled: bool = False
    """Whether the requests were sent at fixed times: an open loop, or turns of sessions after their think times."""

    @property
    def whole(self) -> Candidate:
        """The whole load."""
        pieces = (Piece(n, self.lengths[n], line.request.sampling.max_tokens) for n, line in enumerate(self.lines))
        return Candidate.of(pieces, self.concurrency, timed=self.scheduled)

    def hints(self) -> Iterator[Candidate]:
        """Parts that are likely to fail by themselves, the smallest first. They are tried before the search."""
        if self.accused:
            named = self.accused | self.owners
            yield self.whole.only([min(self.accused)])
            yield self.whole.only(named)
            yield self.whole.only(named | self.overlapping)

    def prefix_lengths(self, block_size: int) -> PrefixLengths:
        """The lengths to which prompts of token ids are shortened. Texts and messages stay whole."""
        return PrefixLengths(block_size, frozenset(n for n, line in enumerate(self.lines) if not _is_ids(line.request)))

    def left(self, candidate: Candidate) -> tuple[Line, ...]:
        """The candidate as lines of a dataset. Times count from the first request that is left of a phase."""
        lines = [_shortened(self.lines[piece.number], piece) for piece in candidate.pieces]
        began = {line.phase: line.at or 0.0 for line in reversed(lines)}
        times = [None if line.at is None or not candidate.timed else line.at - began[line.phase] for line in lines]
        return tuple(replace(line, at=at) for line, at in zip(lines, times, strict=True))

    def load(self, candidate: Candidate, salt: str) -> Scenario:
        """The scenario that tries the candidate. ``salt`` must be new, since caches hold blocks of earlier tries."""
        return dataset_load(self.left(candidate), concurrency=candidate.concurrency, salt=salt)

    def named(self, judgement: Judgement) -> tuple[frozenset[int], frozenset[int]]:
        """The accused requests, and the owners that are not accused, in another judgement."""
        numbers = {line.request.request_id: number for number, line in enumerate(self.lines)}
        findings = [finding for check in judgement.checks if check.name in self.checks for finding in check.findings]
        accused = frozenset(numbers[one.request] for one in findings if one.request in numbers)
        owners = frozenset(numbers[one.owner] for one in findings if one.owner in numbers)
        return accused, owners - accused

    def seen_again(self, judgement: Judgement) -> "FailingLoad":
        """The load after it failed again. Accused are the requests named both times or, if none, the last time."""
        accused, owners = self.named(judgement)
        return replace(self, accused=self.accused & accused or accused, owners=owners)

    def fails(self, judgement: Judgement) -> bool:
        """Whether all checks that were invalid in the stored run are invalid in this judgement."""
        return set(self.checks) <= set(invalid(judgement))


def invalid(judgement: Judgement) -> tuple[str, ...]:
    """Names of the invalid checks."""
    return tuple(check.name for check in judgement.checks if check.verdict is Verdict.INVALID)


def failing_load_of(
    deployment: Deployment, history: History, judgement: Judgement, *, scheduled: bool = False
) -> FailingLoad:
    """The load to shrink. ``scheduled``: its requests were sent at fixed times, which may matter.

    Raises:
        UsageError: no check is invalid, or no invalid check belongs to a part of the load.

    """
    names = dict.fromkeys(o.sent.scenario for o in history.operations() if _is_load(o))
    of_run = invalid(judgement)
    for name in names:
        part = judgement if len(names) == 1 else judge_scenario(deployment, history, judgement, name)
        checks = tuple(check for check in invalid(part) if check in of_run)
        operations = [operation for operation in history.operations(scenario=name) if _is_load(operation)]
        if checks:
            load = _failing_load(name, checks, part, sorted(operations, key=_due_at), history)
            return replace(load, scheduled=scheduled)
    raise UsageError(
        f"The run is {judgement.verdict}, and only an invalid run can be shrunk. `python -m harness check RUN_DIR` "
        "shows the reasons for the verdict."
        if not of_run
        else f"The run is invalid ({', '.join(of_run)}), but no part of its load is, so the load cannot be shrunk."
    )


def _failing_load(
    name: str, checks: tuple[str, ...], judgement: Judgement, operations: Sequence[Operation], history: History
) -> FailingLoad:
    numbers = {operation.request.request_id: number for number, operation in enumerate(operations)}
    load = FailingLoad(
        scenario=name,
        checks=checks,
        lines=tuple(_lines(operations)),
        lengths=tuple(max(len(operation.prompt_token_ids or ()), 1) for operation in operations),
        concurrency=_most_in_flight(history, numbers),
        accused=frozenset(),
        owners=frozenset(),
        overlapping=frozenset(),
    )
    accused, owners = load.named(judgement)
    return replace(load, accused=accused, owners=owners, overlapping=frozenset(_overlapping(operations, accused)))


def _due_at(operation: Operation) -> float:
    return operation.sent.intended_at


def _is_load(operation: Operation) -> bool:
    """Whether the request is part of the load and is not meant to be refused."""
    request = operation.request
    return request.of_load and request.expect_status is None


def _overlapping(operations: Sequence[Operation], accused: Iterable[int]) -> Iterator[int]:
    spans = [(operations[number].sent.at, operations[number].ended.at) for number in accused]
    for number, operation in enumerate(operations):
        if any(operation.sent.at <= end and operation.ended.at >= begin for begin, end in spans):
            yield number


def _most_in_flight(history: History, numbers: dict[str, int]) -> int:
    """The concurrency that was reached. The history does not contain the limit."""
    in_flight, most = set[str](), 1
    for entry in history.entries:
        if isinstance(entry, Sent) and entry.request.request_id in numbers:
            in_flight.add(entry.request.request_id)
            most = max(most, len(in_flight))
        elif isinstance(entry, Ended):
            in_flight.discard(entry.request_id)
    return most


def _lines(operations: Sequence[Operation]) -> Iterator[Line]:
    """The requests, with short names instead of the run's salts, which must not be used again."""
    salts = list(dict.fromkeys(operation.request.cache_salt for operation in operations))
    began = {operation.sent.phase: _due_at(operation) for operation in reversed(operations)}
    names = {salt: None if len(salts) == 1 or salt is None else f"salt-{n}" for n, salt in enumerate(salts)}
    for operation in operations:
        request, sampling = operation.request, operation.request.sampling
        asked = Sampling(
            max_tokens=sampling.max_tokens,
            min_tokens=sampling.min_tokens,
            ignore_eos=sampling.ignore_eos,
            temperature=sampling.temperature,
            seed=sampling.seed,
            n=sampling.n,
            stop=sampling.stop,
            logprobs=LOAD_LOGPROBS,
        )
        plain = replace(request, sampling=asked, server=None, cache_salt=names[request.cache_salt])
        yield Line(plain, operation.sent.phase, _due_at(operation) - began[operation.sent.phase])


def _shortened(line: Line, piece: Piece) -> Line:
    request, sampling = line.request, line.request.sampling
    prompt = request.prompt[: piece.prompt] if _is_ids(request) else request.prompt
    least = None if sampling.min_tokens is None else min(sampling.min_tokens, piece.output)
    shorter = replace(sampling, max_tokens=piece.output, min_tokens=least)
    return replace(line, request=replace(request, prompt=prompt, sampling=shorter))


def _is_ids(request: Request) -> bool:
    return not isinstance(request.prompt, str) and all(isinstance(token, int) for token in request.prompt)
