"""What was asked and answered so far in the search for owners. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.history import History, Operation
from harness.scenario import Purpose, Request
from harness.verify.asking.candidates import answer_of
from harness.verify.asking.requests import Tokens
from harness.verify.judging.continuations import is_continuation
from harness.verify.judging.first_token import MIN_COMMON, Vector, distance, served_vector
from harness.verify.judging.load_part import asked_of

Key = tuple[str, Tokens]
"""The wrong output's request id and the candidate's prompt."""


@dataclass(frozen=True, slots=True)
class Tested:
    """The answer to an owner test."""

    first: Collection[int]
    """The tokens with which it may begin."""
    vector: Vector


@dataclass(frozen=True, slots=True)
class OwnerAnswers:
    """The owner tests, continuations and forcings so far."""

    tests: Mapping[Key, Tested]
    continued: Mapping[Key, Operation]
    forced: Collection[Key]
    others: Collection[tuple[str, str]]
    """The wrong output's request id and the owner's, of all forcings."""
    requests: Sequence[Request]
    noise: float | None
    """The limit of noise of first tokens' log-probabilities, nats; None if it is not known."""

    @classmethod
    def of(cls, history: History, wrong: Sequence[Operation], noise: float | None) -> "OwnerAnswers":
        """``wrong``: the subjects of the search."""
        lengths = {one.request.request_id: len(one.prompt_token_ids or ()) for one in wrong}
        asked = [o for o in asked_of(history) if o.request.about is not None and o.request.owner is not None]
        tests, continued = dict[Key, Tested](), dict[Key, Operation]()
        forced, others = set[Key](), set[tuple[str, str]]()
        for one in asked:
            who, prompt = str(one.request.about), one.prompt_token_ids or ()
            if is_continuation(one.request):
                continued[who, prompt] = one
            elif one.request.purpose is Purpose.OWNER_TEST:
                tests[who, prompt] = Tested(_first_tokens(one), served_vector(one))
            else:
                forced.add((who, prompt[: lengths.get(who)]))
                others.add((who, str(one.request.owner)))
        return cls(tests, continued, forced, others, [o.request for o in asked], noise)

    def told_by_vectors(self, wrong: Operation) -> bool:
        """Whether the wrong output's first token can be compared with those of owner tests."""
        return self.noise is not None and len(served_vector(wrong)) >= MIN_COMMON

    def apart(self, wrong: Operation, prompt: Tokens) -> tuple[float, int]:
        """The distance of two first tokens, nats; those with too few common tokens by how many they have."""
        own, other = served_vector(wrong), self.tests[wrong.request.request_id, prompt].vector
        return distance(own, other), -len(own.keys() & other.keys())

    def fits(self, wrong: Operation, prompt: Tokens) -> bool:
        """Whether the wrong output begins as the prompt's answer does, by log-probabilities or by the token alone."""
        if self.noise is not None and self.told_by_vectors(wrong):
            return self.apart(wrong, prompt)[0] <= self.noise
        return bool(set(answer_of(wrong)[:1]) & set(self.tests[wrong.request.request_id, prompt].first))


def _first_tokens(operation: Operation) -> Collection[int]:
    """The served token and the runner-up: if two are equally good, chance decides which one is served."""
    choice = next(iter(operation.ended.choices), None)
    if choice is None:
        return ()
    return {*choice.token_ids[:1], *(choice.logprobs[0].named if choice.logprobs and choice.logprobs[0] else ())}
