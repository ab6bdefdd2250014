"""What a stored run leaves to be shrunk: which checks failed, with which requests, and who is accused. Pure.

A run of several workloads is shrunk for the first of them that is invalid. The probe of its caches and the
verification of its outputs are no part of the load: they follow each try as they followed the run.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.checkers import judge_scenario
from harness.errors import UsageError
from harness.facts import Deployment
from harness.history import Ended, History, Operation, Sent
from harness.loads.dataset import Line, dataset_load
from harness.scenario import TOP_LOGPROBS, Request, Sampling, Scenario
from harness.shrink.candidate import Candidate, Cutting, Piece
from harness.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """A load that failed. Requests are numbered in the order in which they were sent."""

    scenario: str
    checks: tuple[str, ...]
    """Names of those that were invalid."""
    lines: tuple[Line, ...]
    lengths: tuple[int, ...]
    """Tokens of each prompt, as far as the run knows them; at least 1."""
    concurrency: int
    """The most requests that were in flight at a time."""
    accused: frozenset[int]
    """Requests that the invalid checks name as their subject."""
    mentioned: frozenset[int]
    """Others that their words name: owners of leaked KV."""
    beside: frozenset[int]
    """Those that were in flight with an accused one."""

    @property
    def whole(self) -> Candidate:
        """All of the load."""
        pieces = (Piece(n, self.lengths[n], line.request.sampling.max_tokens) for n, line in enumerate(self.lines))
        return Candidate.of(pieces, self.concurrency)

    def hints(self) -> Iterator[Candidate]:
        """Parts that may fail by themselves, the smallest first; to be tried before any halving."""
        if self.accused:
            named = self.accused | self.mentioned
            yield self.whole.only([min(self.accused)])
            yield self.whole.only(named)
            yield self.whole.only(named | self.beside)

    def cutting(self, block_size: int) -> Cutting:
        """How its prompts are cut: token ids at blocks, text and messages not at all."""
        return Cutting(block_size, frozenset(n for n, line in enumerate(self.lines) if not _is_ids(line.request)))

    def left(self, candidate: Candidate) -> tuple[Line, ...]:
        """The lines of a dataset that the candidate is."""
        return tuple(_cut(self.lines[piece.number], piece) for piece in candidate.pieces)

    def load(self, candidate: Candidate, salt: str) -> Scenario:
        """The scenario that tries it; ``salt`` is new for each try, or caches would answer from the one before."""
        return dataset_load(self.left(candidate), concurrency=candidate.concurrency, salt=salt)

    def named(self, judgement: Judgement) -> tuple[frozenset[int], frozenset[int]]:
        """Whom the invalid checks accuse, and whom else their words name."""
        numbers = {line.request.request_id: number for number, line in enumerate(self.lines)}
        findings = [finding for check in judgement.checks if check.name in self.checks for finding in check.findings]
        accused = frozenset(numbers[one.request] for one in findings if one.request in numbers)
        owners = frozenset(numbers[one.owner] for one in findings if one.owner in numbers)
        return accused, owners - accused

    def seen_again(self, judgement: Judgement) -> "Case":
        """The case after another run of the whole load: who is accused both times, else whoever was last."""
        accused, mentioned = self.named(judgement)
        return replace(self, accused=self.accused & accused or accused, mentioned=mentioned)

    def fails(self, judgement: Judgement) -> bool:
        """Whether what was invalid is invalid again."""
        return set(self.checks) <= set(invalid(judgement))


def invalid(judgement: Judgement) -> tuple[str, ...]:
    """Names of the checks that are."""
    return tuple(check.name for check in judgement.checks if check.verdict is Verdict.INVALID)


def case_of(deployment: Deployment, history: History, judgement: Judgement) -> Case:
    """What is to be shrunk.

    Raises:
        UsageError: nothing is invalid, or nothing that a part of the load could show.

    """
    names = dict.fromkeys(o.sent.scenario for o in history.operations() if _is_load(o))
    of_run = invalid(judgement)
    for name in names:
        part = judgement if len(names) == 1 else judge_scenario(deployment, history, judgement, name)
        checks = tuple(check for check in invalid(part) if check in of_run)
        operations = [operation for operation in history.operations(scenario=name) if _is_load(operation)]
        if checks:
            return _case(name, checks, part, operations, history)
    raise UsageError(
        f"The run is {judgement.verdict}, and only an invalid one can be shrunk: there is nothing that a smaller load "
        "could show again. `python -m harness check RUN_DIR` says why it is so."
        if not of_run
        else f"The run is invalid ({', '.join(of_run)}), but no part of its load is: there is nothing to leave out."
    )


def _case(
    name: str, checks: tuple[str, ...], judgement: Judgement, operations: Sequence[Operation], history: History
) -> Case:
    numbers = {operation.request.request_id: number for number, operation in enumerate(operations)}
    case = Case(
        scenario=name,
        checks=checks,
        lines=tuple(_lines(operations)),
        lengths=tuple(max(len(operation.prompt_token_ids or ()), 1) for operation in operations),
        concurrency=_most_in_flight(history, numbers),
        accused=frozenset(),
        mentioned=frozenset(),
        beside=frozenset(),
    )
    accused, mentioned = case.named(judgement)
    return replace(case, accused=accused, mentioned=mentioned, beside=frozenset(_overlapping(operations, accused)))


def _is_load(operation: Operation) -> bool:
    """Not what verifies, nor what was sent to be refused."""
    request = operation.request
    return request.of_load and request.expect_status is None


def _overlapping(operations: Sequence[Operation], accused: Iterable[int]) -> Iterator[int]:
    spans = [(operations[number].sent.at, operations[number].ended.at) for number in accused]
    for number, operation in enumerate(operations):
        if any(operation.sent.at <= end and operation.ended.at >= begin for begin, end in spans):
            yield number


def _most_in_flight(history: History, numbers: dict[str, int]) -> int:
    """Counted, for a history does not say what the limit was."""
    flying, most = set[str](), 1
    for entry in history.entries:
        if isinstance(entry, Sent) and entry.request.request_id in numbers:
            flying.add(entry.request.request_id)
            most = max(most, len(flying))
        elif isinstance(entry, Ended):
            flying.discard(entry.request_id)
    return most


def _lines(operations: Sequence[Operation]) -> Iterator[Line]:
    """With salts told apart by short names: the run's own are over."""
    salts = list(dict.fromkeys(operation.request.cache_salt for operation in operations))
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
            logprobs=TOP_LOGPROBS,
        )
        plain = replace(request, sampling=asked, server=None, cache_salt=names[request.cache_salt])
        yield Line(plain, operation.sent.phase)


def _cut(line: Line, piece: Piece) -> Line:
    request, sampling = line.request, line.request.sampling
    prompt = request.prompt[: piece.prompt] if _is_ids(request) else request.prompt
    least = None if sampling.min_tokens is None else min(sampling.min_tokens, piece.output)
    shorter = replace(sampling, max_tokens=piece.output, min_tokens=least)
    return replace(line, request=replace(request, prompt=prompt, sampling=shorter))


def _is_ids(request: Request) -> bool:
    return not isinstance(request.prompt, str) and all(isinstance(token, int) for token in request.prompt)
