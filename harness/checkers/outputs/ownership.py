"""Whose KV was it? A wrong output that is right for another request's prompt leaks that prompt.

Two roads lead to the owner.

By experiment. D pulls the KV of a prompt's tokens but the last, which it computes itself. If what it pulled was of
request B, request A's answer is what B's prompt, with A's last token in place of its own, goes on to. A teacher forcing
of just that (sent after the run for each wrong output and each request that may own the KV) has no regret where it is
so. The chance that it has none by accident is told by all the forcings under prompts that are not the owner's: with p
the share of their tokens within the noise, p to the number of tokens.

By likeness. A run of tokens that also stands in another request's answer, known to be right, where
that request's prompt is another. The chance of a run of m tokens is the number of pairs of places times c^m, where c is
the larger of two shares that the right answers themselves show: that two tokens taken anywhere are equal, and that two
tokens that follow equal ones are. (Language repeats itself: with independent tokens alone every common phrase would be
one.)

A name is given only where the chance is below CHANCE, over all candidates together.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.checkers.outputs.compared import Compared, Match
from harness.checkers.outputs.forcing import forcings, regrets_from
from harness.history import History, Operation
from harness.scenario import InquiryKind

CHANCE = 1e-6
"""An accusation of this kind must not be an accident: one in a million wrong outputs."""
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leak:
    """One output that belongs to another request's prompt."""

    request_id: str
    owner: str
    text: str


def find_leaks(history: History, compared: Sequence[Compared], near: float) -> tuple[Leak, ...]:
    """The wrong outputs whose owner can be named, in the order sent.

    ``near``: nats of regret up to which a token counts as the best one under a supposed prompt.
    """
    wrong = [one for one in compared if one.match is Match.MISMATCH]
    if not wrong:
        return ()
    operations = {o.request.request_id: o for o in history.operations()}
    right = _right_answers(operations, compared)
    suppositions = _suppositions(history, operations, near)
    search = Search(suppositions, searches(history))
    found = (_owner(operations[one.request_id], one, right, search) for one in wrong)
    return tuple(leak for leak in found if leak is not None)


@dataclass(frozen=True, slots=True)
class _Supposed:
    """A wrong output under another request's prompt."""

    owner: str
    near: int
    """Tokens that are the best one there, or as good as that."""
    tokens: int


def _owner(
    operation: Operation,
    wrong: Compared,
    right: dict[str, Operation],
    search: "Search",
) -> Leak | None:
    return _by_experiment(wrong, search) or _by_likeness(operation, wrong, right)


def searches(history: History) -> Counter[str]:
    """How many requests were tried as the owner of each output's KV, by request id."""
    pairs = {
        (inquiry.about, inquiry.under)
        for operation in history.operations()
        if (inquiry := operation.request.inquiry) and inquiry.kind is InquiryKind.SUPPOSITION
    }
    return Counter(about for about, _ in pairs)


@dataclass(frozen=True, slots=True)
class Search:
    """All suppositions of a run."""

    forced: Mapping[str, Sequence[_Supposed]]
    """By the wrong output's request id."""
    tried: Mapping[str, int]

    def best(self, request_id: str) -> _Supposed | None:
        """The prompt under which most of its tokens are the best ones."""
        return max(self.forced.get(request_id, ()), key=lambda one: one.near / one.tokens, default=None)

    def share(self) -> float:
        """How often a token is the best one, or as good as that, under a prompt that is not its owner's."""
        others = [one for who, all_ in self.forced.items() for one in all_ if one is not self.best(who)]
        # One is added to either count: a share of nothing would make any match certain.
        return (sum(one.near for one in others) + 1) / (sum(one.tokens for one in others) + 2)


def _by_experiment(wrong: Compared, search: Search) -> Leak | None:
    best = search.best(wrong.request_id)
    if best is None or best.near < best.tokens:
        return None
    tried = max(len(search.forced[wrong.request_id]), search.tried.get(wrong.request_id, 0))
    chance = tried * search.share() ** best.tokens
    if chance > CHANCE:
        return None
    text = (
        f"was answered with {best.owner}'s KV: all of its {best.tokens} tokens are what that prompt goes on to "
        f"(by chance: {chance:.0e}); {wrong.text}"
    )
    return Leak(wrong.request_id, best.owner, text)


def _suppositions(history: History, operations: dict[str, Operation], near: float) -> dict[str, list[_Supposed]]:
    owners = [(o.prompt_token_ids, name) for name, o in operations.items() if _is_asked(o)]
    return {
        who: list(_supposed(operations[who], asked, owners, near))
        for who, asked in forcings(history).items()
        if who in operations
    }


def _is_asked(operation: Operation) -> bool:
    return operation.request.reference_for is None and operation.request.inquiry is None


def _supposed(
    operation: Operation, asked: Iterable[Operation], owners: Sequence[tuple[Tokens | None, str]], near: float
) -> Iterator[_Supposed]:
    """The forcings of an operation's output that stand under another's prompt."""
    prompt = operation.prompt_token_ids or ()
    pulled = len(prompt) - 1
    for forcing in asked:
        sent = forcing.request.prompt
        if not isinstance(sent, tuple) or sent[: len(prompt)] == prompt or pulled < 1:
            continue
        inquiry = forcing.request.inquiry
        owner = (
            inquiry.under
            if inquiry
            else next((name for head, name in owners if head and head[:pulled] == sent[:pulled]), None)
        )
        regret = regrets_from(forcing, len(prompt))
        if owner is not None and regret is not None:
            yield _Supposed(owner, int((regret <= near).sum()), len(regret))


# --- by likeness ---


def _right_answers(operations: dict[str, Operation], compared: Iterable[Compared]) -> dict[str, Operation]:
    return {one.request_id: operations[one.request_id] for one in compared if one.match in (Match.EXACT, Match.TIE)}


def _by_likeness(operation: Operation, wrong: Compared, right: dict[str, Operation]) -> Leak | None:
    answers = {name: _tokens(other) for name, other in right.items() if _is_another(operation, other)}
    mine = _tokens(operation)[wrong.first :]
    runs = {name: longest_run(mine, answer) for name, answer in answers.items()}
    owner = max(runs, key=runs.__getitem__, default=None)
    if owner is None:
        return None
    pairs = len(mine) * sum(map(len, answers.values()))
    chance = pairs * likeness(answers.values()) ** runs[owner]
    if chance > CHANCE:
        return None
    text = (
        f"was answered with {owner}'s KV: {runs[owner]} tokens in a row are that request's answer "
        f"(by chance: {chance:.0e}); {wrong.text}"
    )
    return Leak(wrong.request_id, owner, text)


def _is_another(operation: Operation, other: Operation) -> bool:
    """Another prompt, in flight with it or before it: KV of the future leaks nowhere."""
    return other.prompt_token_ids != operation.prompt_token_ids and other.sent.at <= operation.ended.at


def _tokens(operation: Operation) -> Tokens:
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()


def longest_run(one: Tokens, other: Tokens) -> int:
    """The length of the longest run of tokens that both hold."""
    if not one or not other:
        return 0
    equal = np.equal.outer(np.array(one), np.array(other))
    best, row = 0, np.zeros(len(other), dtype=int)
    for line in equal:
        row = (np.concatenate(([0], row[:-1])) + 1) * line
        best = max(best, int(row.max()))
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
