"""The owner of a wrong output: the request whose KV it was made from.

A named owner is a security finding, so it needs evidence with no other explanation. There are three kinds.

1. The reported prompt. The server reports the prompt that it received. If this is another request's prompt, the whole
   answer of that request was delivered to this one. If it is any other wrong prompt, KV is not the cause.
2. The output forced under another prompt. The decode server pulls the KV of all prompt tokens but the last one, which
   it computes itself. If it pulled the KV of request B, request A's answer continues B's prompt with the last token
   replaced by A's last token. The answer is teacher-forced under this prompt (after the run, for each wrong output and
   each candidate owner); if B is the owner, no token has regret.
3. A shared run. A run of tokens is also in the answer of a request that has another prompt and a right answer.

Kinds 2 and 3 also occur by chance: real language has loops ("1. 1. 1. ..."), lists and boilerplate, in which many
prompts end. So only *informative* tokens count. A token is not informative if

- it is the best token, or nearly, under the request's own prompt or any other prompt that is not the owner's;
- the answer repeats itself there: the same token followed the token before it earlier in the answer;
- (kind 3) it follows the same two tokens in a right answer to a third prompt.

The probability of an informative token is the highest one that the other prompts give it, and at least the share of
tokens that fit by chance in the whole run. The probability of the answer is the product over these tokens, times the
number of requests (or positions) that were compared. An owner is named if at least MIN_INFORMATIVE tokens are
informative, the probability is at most MAX_CHANCE, and, for kind 2, at least _MIN_OTHERS other prompts were tested.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.history import History, Operation
from harness.verify.judging.chance_match import MAX_CHANCE, MIN_INFORMATIVE, chance_match, repetitions
from harness.verify.judging.compared import RIGHT, Compared, Match
from harness.verify.judging.forcing import ForcedTokens, forced_tokens, forcings
from harness.verify.judging.shared_runs import AnswerIndex

_MIN_OTHERS = 3
"""Prompts other than the owner's (the request's own included) under which the answer must have been forced. Fewer do
not show whether any prompt continues like this."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A wrong output and its owner."""

    request_id: str
    owner: str
    text: str
    first: int | None
    """The first wrong token of the output, counted from 0; None if it is not known."""


def find_leaks(history: History, compared: Sequence[Compared], near: float) -> tuple[Leak, ...]:
    """The wrong outputs whose owner is known, in the order sent.

    ``near``: nats of regret up to which a token counts as the best one under a prompt.
    """
    wrong = [one for one in compared if one.match is Match.MISMATCH]
    if not wrong:
        return ()
    operations = {o.request.request_id: o for o in history.operations()}
    tests = _OwnerTests(_forced_outputs(history, operations), tested_owners(history), near)
    right = AnswerIndex.of([operations[one.request_id] for one in compared if one.match in RIGHT])
    found = (
        _by_reported_prompt(one, operations)
        if _received_another_prompt(operations[one.request_id])
        else _by_forcing(one, operations, tests) or _by_shared_run(one, operations, tests, right)
        for one in wrong
    )
    return tuple(leak for leak in found if leak is not None)


def tested_owners(history: History) -> Counter[str]:
    """How many candidate owners were tested for each output, by request id."""
    pairs = {
        (operation.request.about, operation.request.owner)
        for operation in history.operations()
        if operation.request.owner is not None
    }
    return Counter(str(about) for about, _ in pairs)


@dataclass(frozen=True, slots=True)
class _ForcedOutput:
    """A wrong output forced under one prompt."""

    owner: str | None
    """The request that has this prompt; None if it is the request's own prompt."""
    tokens: ForcedTokens

    def best_tokens(self, near: float) -> int:
        """How many tokens are the best ones under this prompt, within ``near`` nats."""
        return int((self.tokens.regret <= near).sum())


@dataclass(frozen=True, slots=True)
class _OwnerTests:
    """All results of the search for owners."""

    forced: Mapping[str, Sequence[_ForcedOutput]]
    """By the request id of the wrong output."""
    tested: Mapping[str, int]
    near: float

    def best(self, request_id: str) -> _ForcedOutput | None:
        """The other request's prompt under which most of the output's tokens are the best ones."""
        others = [one for one in self.forced.get(request_id, ()) if one.owner is not None]
        return max(others, key=lambda one: one.best_tokens(self.near) / len(one.tokens.regret), default=None)

    def others(self, request_id: str, owner: str | None) -> list[ForcedTokens]:
        """The output under every prompt but the owner's, its own prompt included."""
        return [one.tokens for one in self.forced.get(request_id, ()) if owner is None or one.owner != owner]

    def chance_share(self) -> float:
        """The share of tokens that are the best ones under the prompt of a request that is not the owner."""
        best = {who: self.best(who) for who in self.forced}
        others = [one for who, every in self.forced.items() for one in every if one.owner and one is not best[who]]
        fitting, tokens = sum(one.best_tokens(self.near) for one in others), sum(len(o.tokens.regret) for o in others)
        # One is added to each count: a share of 0 would make any match certain.
        return (fitting + 1) / (tokens + 2)


def _received_another_prompt(operation: Operation) -> bool:
    reported = operation.ended.prompt_token_ids
    return reported is not None and reported != operation.prompt_token_ids


def _by_reported_prompt(wrong: Compared, operations: Mapping[str, Operation]) -> Leak | None:
    """The leak of a request whose prompt the server reports; None if it reports a part of the output's own prompt."""
    operation = operations[wrong.request_id]
    reported, own = operation.ended.prompt_token_ids or (), operation.prompt_token_ids or ()
    if not reported or reported in (own[: len(reported)], own[-len(reported) :]):
        return None
    owner = next(
        (name for name, one in operations.items() if one.request.of_load and one.prompt_token_ids == reported), None
    )
    if owner is None:
        return None
    text = f"was given {owner}'s answer: the server reports that request's prompt of {len(reported)} tokens"
    return Leak(wrong.request_id, owner, text, wrong.first)


def _by_forcing(wrong: Compared, operations: Mapping[str, Operation], tests: _OwnerTests) -> Leak | None:
    who = wrong.request_id
    best = tests.best(who)
    if best is None or best.owner is None or best.best_tokens(tests.near) < len(best.tokens.regret):
        return None
    others = tests.others(who, best.owner)
    if len(others) < _MIN_OTHERS:
        return None
    answer = operations[who].ended.choices[0].token_ids[: len(best.tokens.regret)]
    match = chance_match(answer, others, near=tests.near, least=tests.chance_share(), uninformative=repetitions(answer))
    chance = max(len(others), tests.tested.get(who, 0)) * match.probability
    if match.informative < MIN_INFORMATIVE or chance > MAX_CHANCE:
        return None
    text = (
        f"was answered with {best.owner}'s KV: all of its {len(answer)} tokens continue that request's prompt, and "
        f"{match.informative} of them continue none of {len(others)} other prompts (probability by chance: "
        f"{chance:.0e}); {wrong.text}"
    )
    return Leak(who, best.owner, text, wrong.first)


def _by_shared_run(
    wrong: Compared, operations: Mapping[str, Operation], tests: _OwnerTests, right: AnswerIndex
) -> Leak | None:
    operation = operations[wrong.request_id]
    found = right.owner_of(operation, wrong.first or 0, tests.others(wrong.request_id, None), tests.near)
    if found is None:
        return None
    text = (
        f"was answered with {found.owner}'s KV: {found.tokens} tokens in a row are from that request's answer "
        f"(probability by chance: {found.chance:.0e}); {wrong.text}"
    )
    return Leak(wrong.request_id, found.owner, text, wrong.first)


def _forced_outputs(history: History, operations: Mapping[str, Operation]) -> dict[str, list[_ForcedOutput]]:
    return {
        who: list(_under_prompts(operations[who], found))
        for who, found in forcings(history).items()
        if who in operations
    }


def _under_prompts(operation: Operation, candidates: Iterable[Operation]) -> Iterator[_ForcedOutput]:
    """Every forcing of the operation's first choice, with the request whose prompt it has."""
    prompt = operation.prompt_token_ids or ()
    answer = operation.ended.choices[0].token_ids if operation.ended.choices else ()
    for forcing in candidates:
        sent, owner = forcing.request.prompt, forcing.request.owner
        if not prompt or not isinstance(sent, tuple) or sent[len(prompt) :] != answer[: len(sent) - len(prompt)]:
            continue
        own = sent[: len(prompt)] == prompt
        if (own or owner is not None) and (tokens := forced_tokens(forcing, len(prompt))) is not None:
            yield _ForcedOutput(None if own else owner, tokens)
