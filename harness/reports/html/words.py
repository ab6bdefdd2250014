"""The words around the place where an output leaves what its prompt has without KV transfer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.reports.html.numbers import nats
from harness.reports.text import clean
from harness.scenario import Purpose
from harness.verify.judging.divergence import Divergence, Position

_AFTER = 12
"""Tokens of the right answer that are shown from the divergence on."""
_NEAR = 3
"""Tokens on each side of the divergence whose figures are shown."""
MOST_TEXT = 1200
"""Characters of a whole text that are shown."""


@dataclass(frozen=True, slots=True)
class Words:
    """A line of words, one of which is marked."""

    name: str
    """Whose words these are."""
    before: str
    marked: str
    """Empty: none is marked."""
    after: str


@dataclass(frozen=True, slots=True)
class TokenLine:
    """The figures of one token, as shown."""

    index: int
    here: bool
    """Whether it is the token of the divergence."""
    served: str
    best: str
    """Empty if the served token is the best one."""
    served_logprob: str
    forced_logprob: str
    best_logprob: str
    regret: str
    drift: str


def lines_of(one: Divergence, spelled: Mapping[int, str]) -> list[Words]:
    """What was served, and what the prompt has without transfer, as far as that is known."""
    here = _here(one)
    if here is None:
        return _whole_texts(one)
    before = _text((p.served for p in one.around if p.index < here.index), spelled)
    before = ("… " if one.around[0].index else "") + before
    after = _text((p.served for p in one.around if p.index > here.index), spelled)
    ended = one.around[-1].index == len(one.served.token_ids) - 1
    served = Words("Served", before, _word(here.served, spelled), after + ("" if ended else " …"))
    return [served, *_right(one, here, before, spelled)]


def figures(one: Divergence, spelled: Mapping[int, str]) -> list[TokenLine]:
    """The tokens next to the divergence."""
    at = one.at
    return [] if at is None else [_line(p, at, spelled) for p in one.around if abs(p.index - at) <= _NEAR]


def _here(one: Divergence) -> Position | None:
    return next((p for p in one.around if p.index == one.at), None)


def _right(one: Divergence, here: Position, before: str, spelled: Mapping[int, str]) -> Iterator[Words]:
    if one.differs and here.best is not None and here.best != here.served:
        yield Words("Best by teacher forcing", before, _word(here.best, spelled), " …")
    if one.right is None:
        return
    at, ids = one.right_differs_at, one.right.token_ids
    if at is None or at >= len(ids) or at < one.around[0].index or at > one.around[-1].index:
        yield Words(_name(one), clean(one.right.text, MOST_TEXT), "", "")
        return
    start = one.around[0].index
    line = Words(
        _name(one),
        ("… " if start else "") + _text(ids[start:at], spelled),
        _word(ids[at], spelled),
        _text(ids[at + 1 : at + 1 + _AFTER], spelled) + (" …" if len(ids) > at + 1 + _AFTER else ""),
    )
    yield line


def _whole_texts(one: Divergence) -> list[Words]:
    found = [Words("Served", clean(one.served.text, MOST_TEXT), "", "")]
    return found if one.right is None else [*found, Words(_name(one), clean(one.right.text, MOST_TEXT), "", "")]


def _name(one: Divergence) -> str:
    names: dict[Purpose | None, str] = {
        Purpose.REFERENCE: "Without transfer (a reference)",
        Purpose.CONTROL: "Without transfer (a control request)",
        Purpose.RETRY: "Right when it was sent again",
    }
    return names.get(one.right_from, "Right")


def _line(p: Position, at: int, spelled: Mapping[int, str]) -> TokenLine:
    return TokenLine(
        p.index,
        p.index == at,
        _word(p.served, spelled),
        "" if p.best is None or p.best == p.served else _word(p.best, spelled),
        nats(p.served_logprob),
        nats(p.forced_logprob),
        nats(p.best_logprob),
        nats(p.regret),
        nats(p.drift),
    )


def _text(ids: Sequence[int] | Iterator[int], spelled: Mapping[int, str]) -> str:
    return "".join(_spell(token, spelled) for token in ids)


def _spell(token: int, spelled: Mapping[int, str]) -> str:
    text = spelled.get(token)
    return f" ⟨{token}⟩" if text is None else _kept_spaces(text)


def _kept_spaces(text: str) -> str:
    """Printable text on one line; spaces at its ends stay, since they part words."""
    inner = clean(text, 80)
    return (" " if text[:1].isspace() else "") + inner + (" " if inner and text[-1:].isspace() else "")


def _word(token: int, spelled: Mapping[int, str]) -> str:
    """A marked token: never empty, so that the mark can be seen."""
    return _spell(token, spelled).strip() or "␣"
