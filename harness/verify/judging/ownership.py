"""Whose KV was a wrong output made from? A name is a security finding, so it needs evidence that nothing else explains.

Three kinds of evidence lead to an owner.

By what the server says. It tells the prompt that it was given. Where that is another one than was sent, KV explains
nothing any more; if it is another request's, it is the whole answer that was exchanged on the way.

By experiment. D pulls the KV of a prompt's tokens but the last, which it computes itself. If what it pulled was of
request B, request A's answer is what B's prompt, with A's last token in place of its own, goes on to. A teacher forcing
of just that (sent after the run for each wrong output and each request that may own the KV) has no regret where it is
so.

By likeness. A run of tokens that also stands in another request's answer, known to be right, where that request's
prompt is another.

Either is an accident more often than it seems: real language has loops ("1. 1. 1. ..."), lists and boilerplate, which
many prompts end in. So a token counts only if it *tells* something about the owner. It does not if

1. it is the best token, or as good as that, under the request's own prompt or under any prompt that is not the owner's;
2. the answer repeats itself there: the token before it was followed by it earlier in the same answer;
3. (by likeness) it follows the two tokens before it in a right answer to a third prompt as well.

A token that tells has at most the probability that the other prompts gave it, and no less than the share of tokens that
fit by accident in the whole run. The chance of the whole answer is the product over these tokens, times the number of
requests (or places) that were compared. A name is given where FEWEST_TELLING tokens tell, the chance is below CHANCE,
and, by experiment, FEWEST_OTHERS other prompts have been tried. Everything else is wrong, with an owner nobody knows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.history import History, Operation
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import ForcedTokens, forced_tokens, forcings
from harness.verify.judging.likeness import Likeness
from harness.verify.judging.telling import CHANCE, FEWEST_TELLING, Tokens, by_accident, repeated

FEWEST_OTHERS = 3
"""Prompts that are not the owner's, the request's own among them, under which the answer was forced: with fewer, text
that any prompt goes on to is not recognised."""


@dataclass(frozen=True, slots=True)
class Leak:
    """One output that belongs to another request's prompt."""

    request_id: str
    owner: str
    text: str
    first: int
    """The first wrong token of its answer, from 0."""


def find_leaks(history: History, compared: Sequence[Compared], near: float) -> tuple[Leak, ...]:
    """The wrong outputs whose owner can be named, in the order sent.

    ``near``: nats of regret up to which a token counts as the best one under a prompt.
    """
    wrong = [one for one in compared if one.match is Match.MISMATCH]
    if not wrong:
        return ()
    operations = {o.request.request_id: o for o in history.operations()}
    forced = _forced(history, operations)
    search = Search(forced, searches(history), near)
    right = [operations[one.request_id] for one in compared if one.match in (Match.EXACT, Match.TIE)]
    likeness = Likeness.of(right)
    found = (
        _by_prompt(one, operations)
        if _is_of_another_prompt(operations[one.request_id])
        else _by_experiment(one, operations, search) or _by_likeness(one, operations, search, likeness)
        for one in wrong
    )
    return tuple(leak for leak in found if leak is not None)


def searches(history: History) -> Counter[str]:
    """How many requests were tried as the owner of each output's KV, by request id."""
    pairs = {
        (operation.request.about, operation.request.owner)
        for operation in history.operations()
        if operation.request.owner is not None
    }
    return Counter(str(about) for about, _ in pairs)


@dataclass(frozen=True, slots=True)
class UnderPrompt:
    """A wrong output forced under one prompt."""

    owner: str | None
    """Whose prompt it is; None: the request's own."""
    tokens: ForcedTokens

    def near(self, limit: float) -> int:
        """Tokens that are the best one there, or as good as that."""
        return int((self.tokens.regret <= limit).sum())


@dataclass(frozen=True, slots=True)
class Search:
    """All that the search for owners has found out."""

    forced: Mapping[str, Sequence[UnderPrompt]]
    """By the wrong output's request id."""
    tried: Mapping[str, int]
    near: float

    def best(self, request_id: str) -> UnderPrompt | None:
        """The other request's prompt under which most of its tokens are the best ones."""
        others = [one for one in self.forced.get(request_id, ()) if one.owner is not None]
        return max(others, key=lambda one: one.near(self.near) / len(one.tokens.regret), default=None)

    def others(self, request_id: str, owner: str | None) -> list[ForcedTokens]:
        """The output under every prompt but that owner's, its own prompt included."""
        return [one.tokens for one in self.forced.get(request_id, ()) if owner is None or one.owner != owner]

    def share(self) -> float:
        """How often a token is the best one, or as good as that, under another prompt that is not its owner's."""
        best = {who: self.best(who) for who in self.forced}
        others = [one for who, every in self.forced.items() for one in every if one.owner and one is not best[who]]
        fitting, tokens = sum(one.near(self.near) for one in others), sum(len(one.tokens.regret) for one in others)
        # One is added to either count: a share of nothing would make any match certain.
        return (fitting + 1) / (tokens + 2)


def _is_of_another_prompt(operation: Operation) -> bool:
    told = operation.ended.prompt_token_ids
    return told is not None and told != operation.prompt_token_ids


def _by_prompt(wrong: Compared, operations: Mapping[str, Operation]) -> Leak | None:
    """The request whose prompt the server says that it answered; a part of the own prompt is nobody's."""
    operation = operations[wrong.request_id]
    told, own = operation.ended.prompt_token_ids or (), operation.prompt_token_ids or ()
    if not told or told in (own[: len(told)], own[-len(told) :]):
        return None
    owner = next(
        (name for name, one in operations.items() if one.request.of_load and one.prompt_token_ids == told), None
    )
    if owner is None:
        return None
    text = (
        f"was given {owner}'s answer: the prompt of {len(told)} tokens that the server says it answered is that "
        "request's"
    )
    return Leak(wrong.request_id, owner, text, wrong.first)


def _by_experiment(wrong: Compared, operations: Mapping[str, Operation], search: Search) -> Leak | None:
    who = wrong.request_id
    best = search.best(who)
    if best is None or best.owner is None or best.near(search.near) < len(best.tokens.regret):
        return None
    others = search.others(who, best.owner)
    if len(others) < FEWEST_OTHERS:
        return None
    answer = operations[who].ended.choices[0].token_ids[: len(best.tokens.regret)]
    accident = by_accident(answer, others, near=search.near, least=search.share(), general=repeated(answer))
    tried = max(len(others), search.tried.get(who, 0))
    chance = tried * accident.chance
    if accident.telling < FEWEST_TELLING or chance > CHANCE:
        return None
    text = (
        f"was answered with {best.owner}'s KV: all of its {len(answer)} tokens are what that prompt goes on to, "
        f"{accident.telling} of them are what none of {len(others)} other prompts does (by chance: {chance:.0e}); "
        f"{wrong.text}"
    )
    return Leak(who, best.owner, text, wrong.first)


def _by_likeness(
    wrong: Compared, operations: Mapping[str, Operation], search: Search, likeness: Likeness
) -> Leak | None:
    operation = operations[wrong.request_id]
    found = likeness.owner_of(operation, wrong.first, search.others(wrong.request_id, None), search.near)
    if found is None:
        return None
    text = (
        f"was answered with {found.owner}'s KV: {found.tokens} tokens in a row are that request's answer "
        f"(by chance: {found.chance:.0e}); {wrong.text}"
    )
    return Leak(wrong.request_id, found.owner, text, wrong.first)


# --- the output under each prompt ---


def _forced(history: History, operations: Mapping[str, Operation]) -> dict[str, list[UnderPrompt]]:
    owners = [(o.prompt_token_ids, name) for name, o in operations.items() if o.request.of_load]
    return {
        who: list(_under_prompts(operations[who], asked, owners))
        for who, asked in forcings(history).items()
        if who in operations
    }


def _under_prompts(
    operation: Operation, asked: Iterable[Operation], owners: Sequence[tuple[Tokens | None, str]]
) -> Iterator[UnderPrompt]:
    """Every forcing of an operation's first choice, with whose prompt stands before it."""
    prompt = operation.prompt_token_ids or ()
    answer = operation.ended.choices[0].token_ids if operation.ended.choices else ()
    for forcing in asked:
        sent = forcing.request.prompt
        if not prompt or not isinstance(sent, tuple) or sent[len(prompt) :] != answer[: len(sent) - len(prompt)]:
            continue
        tokens = forced_tokens(forcing, len(prompt))
        owner = None if sent[: len(prompt)] == prompt else _whose(forcing, len(prompt) - 1, owners)
        if tokens is not None and owner != "":
            yield UnderPrompt(owner, tokens)


def _whose(forcing: Operation, pulled: int, owners: Sequence[tuple[Tokens | None, str]]) -> str:
    """Whose prompt a forcing begins with; empty where nobody's is known to."""
    if forcing.request.owner is not None:
        return forcing.request.owner
    sent = forcing.request.prompt
    return next((name for head, name in owners if pulled and head and head[:pulled] == sent[:pulled]), "")
