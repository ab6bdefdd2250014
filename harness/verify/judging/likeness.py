"""Runs of tokens that a wrong answer shares with a right one. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.history import Operation
from harness.verify.judging.forcing import ForcedTokens
from harness.verify.judging.telling import CHANCE, FEWEST_TELLING, Tokens, by_accident, repeated

_CONTEXT = 3
"""A token with the two before it: what a third prompt's answer says, too, is no property of one prompt."""
_MOST_CANDIDATES = 64
"""Right answers that are compared with one wrong one. A run that more of them share is nobody's."""


@dataclass(frozen=True, slots=True)
class SharedRun:
    """The owner that a run of tokens speaks for."""

    owner: str
    tokens: int
    chance: float


@dataclass(frozen=True)
class Likeness:
    """All right answers of a run, indexed by the short sequences of tokens that stand in them."""

    answers: Mapping[str, Operation]
    """By request id."""
    places: int
    """Tokens of all of them."""
    least: float
    """How likely two tokens of different answers are equal."""
    runs: Mapping[Tokens, Sequence[str]]
    """Answers that hold a sequence of FEWEST_TELLING tokens, by that sequence."""
    contexts: Mapping[Tokens, Sequence[str]]
    """Answers that hold a sequence of _CONTEXT tokens, by that sequence."""

    @classmethod
    def of(cls, right: Sequence[Operation]) -> "Likeness":
        """``right``: operations whose answers are known to be right."""
        answers = {operation.request.request_id: operation for operation in right}
        tokens = {name: _tokens(operation) for name, operation in answers.items()}
        return cls(
            answers,
            sum(map(len, tokens.values())),
            likeness(tokens.values()),
            _index(tokens, FEWEST_TELLING),
            _index(tokens, _CONTEXT),
        )

    def owner_of(
        self, operation: Operation, first: int, others: Sequence[ForcedTokens], near: float
    ) -> SharedRun | None:
        """The one whose right answer holds a run of a wrong one, from its token ``first`` on, that is no accident.

        ``others``: the whole answer forced under the request's own prompt and under others. ``near``: as in
        :func:`harness.verify.judging.telling.by_accident`.
        """
        answer = _tokens(operation)
        candidates = [name for name in self._candidates(answer[first:]) if _is_another(operation, self.answers[name])]
        if len(candidates) > _MOST_CANDIDATES:
            return None
        runs = {name: shared_run(answer[first:], _tokens(self.answers[name])) for name in candidates}
        owner = max(runs, key=lambda name: len(runs[name]), default=None)
        if owner is None:
            return None
        run = range(runs[owner].start + first, runs[owner].stop + first)
        general = repeated(answer) | set(self._elsewhere(answer, operation, self.answers[owner]))
        part = [ForcedTokens(one.logprob[run.start :], one.regret[run.start :]) for one in others]
        accident = by_accident(
            answer[run.start : run.stop],
            part,
            near=near,
            least=self.least,
            general={place - run.start for place in general if place in run},
        )
        chance = len(answer) * self.places * accident.chance
        if accident.telling < FEWEST_TELLING or chance > CHANCE:
            return None
        return SharedRun(owner, len(run), chance)

    def _candidates(self, answer: Tokens) -> list[str]:
        sequences = _sequences(answer, FEWEST_TELLING)
        return list(dict.fromkeys(name for sequence in sequences for name in self.runs.get(sequence, ())))

    def _elsewhere(self, answer: Tokens, operation: Operation, owner: Operation) -> Iterator[int]:
        """Places whose token follows the two before it in the right answer to a third prompt."""
        prompts = {operation.prompt_token_ids, owner.prompt_token_ids}
        for start, sequence in enumerate(_sequences(answer, _CONTEXT)):
            if any(self.answers[name].prompt_token_ids not in prompts for name in self.contexts.get(sequence, ())):
                yield start + _CONTEXT - 1


def shared_run(one: Tokens, other: Tokens) -> range:
    """Where in ``one`` the longest run of tokens stands that both hold; empty without any."""
    if not one or not other:
        return range(0)
    equal = np.equal.outer(np.array(one), np.array(other))
    best, row = range(0), np.zeros(len(other), dtype=int)
    for end, line in enumerate(equal, 1):
        row = (np.concatenate(([0], row[:-1])) + 1) * line
        if (length := int(row.max())) > len(best):
            best = range(end - length, end)
    return best


def likeness(answers: Iterable[Tokens]) -> float:
    """How likely two tokens of different answers are equal: anywhere, or after equal ones, whichever is more."""
    answers = list(answers)
    singles = Counter(token for answer in answers for token in answer)
    doubles = Counter(pair for answer in answers for pair in pairwise(answer))
    firsts = Counter(pair[0] for pair in doubles.elements())
    anywhere, equal, after = _pairs(singles), _pairs(firsts), _pairs(doubles)
    total = sum(singles.values())
    # One is added, so that answers in which nothing repeats still leave room for chance.
    return max((anywhere + 1) / (total * (total - 1) / 2 + 1), (after + 1) / (equal + 2))


def _pairs(counts: Counter[int] | Counter[tuple[int, int]]) -> float:
    return sum(n * (n - 1) / 2 for n in counts.values())


def _index(answers: Mapping[str, Tokens], length: int) -> dict[Tokens, list[str]]:
    index: dict[Tokens, list[str]] = {}
    for name, answer in answers.items():
        for sequence in dict.fromkeys(_sequences(answer, length)):
            index.setdefault(sequence, []).append(name)
    return index


def _sequences(answer: Tokens, length: int) -> Iterator[Tokens]:
    return (answer[start : start + length] for start in range(len(answer) - length + 1))


def _is_another(operation: Operation, other: Operation) -> bool:
    """Another prompt, in flight with it or before it: KV of the future leaks nowhere."""
    return other.prompt_token_ids != operation.prompt_token_ids and other.sent.at <= operation.ended.at


def _tokens(operation: Operation) -> Tokens:
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()
