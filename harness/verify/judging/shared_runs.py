"""Runs of tokens that a wrong answer shares with a right answer to another prompt. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.history import Operation
from harness.verify.judging.chance_match import MAX_CHANCE, MIN_INFORMATIVE, Tokens, chance_match, repetitions
from harness.verify.judging.forcing import ForcedTokens

_CONTEXT = 3
"""A token and the two before it. If the answer to a third prompt has these tokens too, they show no owner."""
_MAX_CANDIDATES = 64
"""Right answers that are compared with a wrong one. If more share its runs, no owner is named."""


@dataclass(frozen=True, slots=True)
class SharedRun:
    """A run of tokens that the wrong answer and its owner's answer share."""

    owner: str
    tokens: int
    chance: float
    """Probability that any two answers of the whole load share such a run by chance."""


@dataclass(frozen=True)
class AnswerIndex:
    """All right answers of a run, indexed by their short sequences of tokens."""

    answers: Mapping[str, Operation]
    """By request id."""
    tokens: int
    """Tokens of all answers together."""
    coincidence: float
    """Probability that two tokens of different answers are equal (``coincidence_probability``)."""
    runs: Mapping[Tokens, Sequence[str]]
    """Answers that contain a sequence of MIN_INFORMATIVE tokens, by that sequence."""
    contexts: Mapping[Tokens, Sequence[str]]
    """Answers that contain a sequence of _CONTEXT tokens, by that sequence."""

    @classmethod
    def of(cls, right: Sequence[Operation]) -> "AnswerIndex":
        """``right``: operations whose answers are known to be right."""
        answers = {operation.request.request_id: operation for operation in right}
        tokens = {name: _tokens(operation) for name, operation in answers.items()}
        return cls(
            answers,
            sum(map(len, tokens.values())),
            coincidence_probability(tokens.values()),
            _index(tokens, MIN_INFORMATIVE),
            _index(tokens, _CONTEXT),
        )

    def owner_of(
        self, operation: Operation, first: int, others: Sequence[ForcedTokens], near: float
    ) -> SharedRun | None:
        """The request whose right answer shares a run with the wrong answer that is too improbable for chance.

        ``first``: the first wrong token; the run begins there or later. ``others``: the whole answer forced under the
        request's own prompt and others. ``near``: as in :func:`harness.verify.judging.chance_match.chance_match`.
        """
        answer = _tokens(operation)
        candidates = [name for name in self._candidates(answer[first:]) if _may_own(self.answers[name], operation)]
        if len(candidates) > _MAX_CANDIDATES:
            return None
        runs = {name: shared_run(answer[first:], _tokens(self.answers[name])) for name in candidates}
        owner = max(runs, key=lambda name: len(runs[name]), default=None)
        if owner is None:
            return None
        run = range(runs[owner].start + first, runs[owner].stop + first)
        uninformative = repetitions(answer) | set(self._in_third_answers(answer, operation, self.answers[owner]))
        match = chance_match(
            answer[run.start : run.stop],
            [one.without(run.start) for one in others],
            near=near,
            least=self.coincidence,
            uninformative={index - run.start for index in uninformative if index in run},
        )
        chance = len(answer) * self.tokens * match.probability
        if match.informative < MIN_INFORMATIVE or chance > MAX_CHANCE:
            return None
        return SharedRun(owner, len(run), chance)

    def _candidates(self, answer: Tokens) -> list[str]:
        sequences = _sequences(answer, MIN_INFORMATIVE)
        return list(dict.fromkeys(name for sequence in sequences for name in self.runs.get(sequence, ())))

    def _in_third_answers(self, answer: Tokens, operation: Operation, owner: Operation) -> Iterator[int]:
        """Indices of tokens that follow the same two tokens in the right answer to a third prompt."""
        prompts = {operation.prompt_token_ids, owner.prompt_token_ids}
        for start, sequence in enumerate(_sequences(answer, _CONTEXT)):
            if any(self.answers[name].prompt_token_ids not in prompts for name in self.contexts.get(sequence, ())):
                yield start + _CONTEXT - 1


def shared_run(one: Tokens, other: Tokens) -> range:
    """The indices in ``one`` of the longest run of tokens that both contain; empty if there is none."""
    if not one or not other:
        return range(0)
    equal = np.equal.outer(np.array(one), np.array(other))
    best, row = range(0), np.zeros(len(other), dtype=int)
    for end, line in enumerate(equal, 1):
        row = (np.concatenate(([0], row[:-1])) + 1) * line
        if (length := int(row.max())) > len(best):
            best = range(end - length, end)
    return best


def coincidence_probability(answers: Iterable[Tokens]) -> float:
    """Probability that two tokens of different answers are equal: of any two, or of two after equal ones if larger."""
    answers = list(answers)
    singles = Counter(token for answer in answers for token in answer)
    doubles = Counter(pair for answer in answers for pair in pairwise(answer))
    firsts = Counter(pair[0] for pair in doubles.elements())
    anywhere, equal, after = _pairs(singles), _pairs(firsts), _pairs(doubles)
    total = sum(singles.values())
    # One is added to each count, so that the probability is not 0 if no token repeats.
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


def _may_own(candidate: Operation, operation: Operation) -> bool:
    """Whether the candidate has another prompt and was sent before the operation ended."""
    return candidate.prompt_token_ids != operation.prompt_token_ids and candidate.sent.at <= operation.ended.at


def _tokens(operation: Operation) -> Tokens:
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()
