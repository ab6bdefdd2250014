"""What the search for owners found: each wrong output under the prompts of other requests. Pure.

Three kinds of requests tell. An owner test asks a prefill server for the first token after a candidate's KV: a vector
(first_token.py) for each candidate. A forcing tells how likely every token of the answer is under a candidate's prompt,
or under the end of a prompt (*decoys*; ownership.py). A continuation, an owner test of as many tokens as the answer
has, tells the same of the prompt whose answer it is (continuations.py). The prompt is the one that the output answers
if it was made from the candidate's KV (``asking/owners.py``).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from harness.history import History, Operation
from harness.scenario import Purpose
from harness.verify.judging.block_questions import block_questions, blocks_are_wrong
from harness.verify.judging.chance_match import Tokens, repetitions
from harness.verify.judging.continuations import is_continuation, is_kept
from harness.verify.judging.first_token import (
    MIN_COMMON,
    Vector,
    chance_of_vector,
    distance,
    prefill_vector,
    served_vector,
)
from harness.verify.judging.forcing import ForcedTokens, forcings
from harness.verify.judging.later_tokens import LaterTokens
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.noise import Floats
from harness.verify.judging.under_prompts import UnderPrompt, answer_of, continued, parts, under_prompts

_IN_A_LOOP = 3
"""If so many tokens in a row were in the candidate's prompt, or earlier in the answer, the last one's numbers show
nothing."""


@dataclass(frozen=True, slots=True)
class TestedPrompt:
    """The first token's vector under the prompt of one owner test."""

    owner: str
    prompt: Tokens
    vector: Vector


@dataclass(frozen=True, slots=True)
class OwnerTests:
    """All results of the search for owners."""

    forced: Mapping[str, Sequence[UnderPrompt]]
    """By the request id of the wrong output."""
    vectors: Mapping[str, Sequence[TestedPrompt]]
    """By the request id of the wrong output; only tests that were answered with a vector."""
    tested: Mapping[str, int]
    near: float
    noise: float | None
    """The limit of noise of vectors, nats; None if vectors show nothing in this run."""
    questions: Mapping[str, Operation]
    """The answered block question about each wrong output that has one."""
    later: LaterTokens | None = None
    """What later tokens' log-probabilities show; None if they show nothing in this run."""
    parted: Mapping[str, Collection[Tokens]] = field(default_factory=dict)
    """The prompts whose continuation is not the output, by the request id of the wrong output."""
    share: float = 1.0
    """The share of tokens that are the best ones under the prompt of a request that is not the owner."""

    @classmethod
    def of(
        cls,
        history: History,
        operations: Mapping[str, Operation],
        near: float,
        noise: float | None,
        later: LaterTokens | None = None,
    ) -> "OwnerTests":
        """From the owner tests and forcings of a history; ``operations`` are all of its operations by request id."""
        forced = {
            who: list(under_prompts(operations[who], found))
            for who, found in forcings(history).items()
            if who in operations
        }
        vectors, parted = _vectors(history), dict[str, list[Tokens]]()
        for one in filter(lambda one: is_continuation(one.request), asked_of(history)):
            who, owner = str(one.request.about), operations.get(str(one.request.owner))
            if who in operations and owner is not None and is_kept(owner, _checks(owner, vectors.get(who, ())), noise):
                forced.setdefault(who, []).extend(continued(operations[who], one))
                if parts(operations[who], one, near, later):
                    parted.setdefault(who, []).append(one.prompt_token_ids or ())
        questions = block_questions(history)
        tests = cls(forced, vectors, tested_owners(history), near, noise, questions, later, parted)
        return replace(tests, share=tests._chance_share(operations))

    def best(self, wrong: Operation) -> UnderPrompt | None:
        """The other request's prompt that the output fits best: by the first token's vector, then by all tokens."""
        others = [one for one in self.forced.get(wrong.request.request_id, ()) if one.owner is not None and one.whole]
        not_its = self.ruled_out(wrong)
        return max(others, key=lambda one: (one.prompt not in not_its, *self._fit(wrong, one)), default=None)

    def others(self, request_id: str, owner: str | None, *, whole: bool = False) -> list[ForcedTokens]:
        """The output under every prompt but the owner's, its own prompt included; ``whole``: not under mere ends."""
        found = (one for one in self.forced.get(request_id, ()) if one.whole or not whole)
        return [one.tokens for one in found if owner is None or one.owner != owner]

    def fit(self, wrong: Operation, owner: str, prompt: Tokens) -> "VectorFit | None":
        """How the output's first vector fits an owner test; None if vectors are not known for both."""
        who, own = wrong.request.request_id, served_vector(wrong)
        found = self.vectors.get(who, ())
        mine = next((one.vector for one in found if one.prompt == prompt), None)
        if self.noise is None or mine is None or len(own) < MIN_COMMON:
            return None
        rest = [one.vector for one in found if one.owner != owner]
        if len(prefill := prefill_vector(wrong)) >= MIN_COMMON:
            rest.append(prefill)
        nearest = min((distance(own, one) for one in rest), default=0.0)
        chance = chance_of_vector(own, mine, rest, self.noise)
        return VectorFit(distance(own, mine), nearest, len(rest), self.noise, chance)

    def ruled_out(self, wrong: Operation) -> set[Tokens]:
        """The other requests' prompts under which a token of the output, or its log-probabilities, are others."""
        who = wrong.request.request_id
        found = set(self.parted.get(who, ()))
        for one in self.forced.get(who, ()):
            other_numbers = self.later is not None and self.later.contradict(wrong, one.tokens)
            if one.owner is not None and one.whole and (other_numbers or bool((one.tokens.regret > self.near).any())):
                found.add(one.prompt)
        return found

    def chances_of_numbers(self, wrong: Operation, best: UnderPrompt, others: Sequence[ForcedTokens]) -> Floats:
        """For each token, how likely its log-probabilities agree with a candidate's by chance; shape (tokens,)."""
        chances = np.ones(len(best.tokens.logprob))
        if self.later is not None:
            chances = self.later.chances(wrong, best.tokens, others, best.owner)
        # A loop goes on from the prompt; once it does, its numbers are alike under all prompts that end in it.
        start, text = len(best.prompt), best.prompt + answer_of(wrong)[: len(chances)]
        chances[[index - start for index in repetitions(text, _IN_A_LOOP) if index >= start]] = 1.0
        return chances

    def rivals(self, wrong: Operation, owner: str) -> set[Tokens]:
        """Other candidates' prompts that have the output's first vector, but for noise."""
        own, mine = served_vector(wrong), wrong.prompt_token_ids or ()
        known_wrong = (owner, wrong.request.request_id, wrong.request.about)
        tests = (one for one in self.vectors.get(wrong.request.request_id, ()) if one.owner not in known_wrong)
        # Cache checks have the candidate's own prompt, to which the output is no answer.
        asked = (one for one in tests if (len(one.prompt), one.prompt[-1:]) == (len(mine), mine[-1:]))
        return {one.prompt for one in asked if self.noise is not None and distance(own, one.vector) <= self.noise}

    def is_wrong(self, question: Operation) -> bool:
        """Whether the answer to a block question is not that of its prompt (block_questions.py)."""
        who = question.request.request_id
        forced = [one.tokens for one in self.forced.get(who, ()) if one.owner is None and one.whole]
        own = (one.vector for one in self.vectors.get(who, ()) if one.owner == question.request.about)
        return bool(blocks_are_wrong(question, next(own, {}), forced, near=self.near, noise=self.noise))

    def contradicted(self, wrong: Operation, owner: str) -> bool:
        """Whether the output's first vector fits no owner test of this owner, though there is one."""
        tests = [one for one in self.vectors.get(wrong.request.request_id, ()) if one.owner == owner]
        fits = [self.fit(wrong, owner, one.prompt) for one in tests]
        return any(fits) and not any(one.fits for one in fits if one)

    def _chance_share(self, operations: Mapping[str, Operation]) -> float:
        best = {who: self.best(operations[who]) for who in self.forced}
        owners = {who: one.owner for who, one in best.items() if one is not None}
        others = [o for who, every in self.forced.items() for o in every if o.owner and o.owner != owners.get(who)]
        fitting = sum(one.best_tokens(self.near) for one in others)
        # One is added to each count: a share of 0 would make any match certain.
        return (fitting + 1) / (sum(len(one.tokens.regret) for one in others) + 2)

    def _fit(self, wrong: Operation, one: UnderPrompt) -> tuple[bool, float, float]:
        found = self.fit(wrong, str(one.owner), one.prompt)
        apart = inf if found is None else found.apart
        return found is not None and found.fits, one.mean_probability(self.near), -apart


@dataclass(frozen=True, slots=True)
class VectorFit:
    """The output's first vector beside those of one candidate and of all others; nats."""

    apart: float
    """Distance from the candidate's vector."""
    nearest: float
    """Distance from the nearest vector of all other candidates and of the output's own prompt."""
    others: int
    noise: float
    chance: float
    """Probability that the nearest of all compared fits as well; 1 if it does not fit, or if others are near."""

    @property
    def fits(self) -> bool:
        """Whether the candidate's vector is the output's but for noise."""
        return self.apart <= self.noise


def tested_owners(history: History) -> Counter[str]:
    """How many candidate owners were tested for each output, by request id."""
    about = {one.request.request_id: who for who, one in block_questions(history).items()}
    pairs = {
        (who, operation.request.owner)
        for operation in asked_of(history)
        if operation.request.owner is not None
        for who in {str(operation.request.about), about.get(str(operation.request.about), "")} - {""}
        # An output's own prompt is no candidate.
        if operation.request.owner != about.get(str(operation.request.about), who)
    }
    return Counter(who for who, _ in pairs)


def _vectors(history: History) -> dict[str, list[TestedPrompt]]:
    found: dict[str, list[TestedPrompt]] = {}
    for one in asked_of(history):
        request = one.request
        if request.purpose is not Purpose.OWNER_TEST or request.owner is None:
            continue
        if len(vector := served_vector(one)) >= MIN_COMMON:
            tested = TestedPrompt(str(request.owner), one.prompt_token_ids or (), vector)
            found.setdefault(str(request.about), []).append(tested)
    return found


def _checks(owner: Operation, found: Iterable[TestedPrompt]) -> Iterator[Vector]:
    """The vectors of cache checks: owner tests with the owner's own prompt."""
    who, prompt = owner.request.request_id, owner.prompt_token_ids
    return (one.vector for one in found if (one.owner, one.prompt) == (who, prompt))
