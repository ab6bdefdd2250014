"""Where an output leaves what its prompt has without KV transfer, token by token, for people who look at it. Pure.

Two things tell what a prompt has. Its teacher forcing names the best token at each position, after the tokens that
were really served. A right answer to the same prompt goes on in its own way after the first difference: a reference or
a control request, which were answered without transfer, or a retry whose answer was verified. Nothing here decides
whether an output is wrong: compare_forced.py and its neighbours do.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.history import Choice, History, Operation, Outcome, TokenLogprob
from harness.scenario import Purpose
from harness.verify.judging.compare_reference import first_difference
from harness.verify.judging.compared import RIGHT, Compared
from harness.verify.judging.evidence import look_at_outputs
from harness.verify.judging.forcing import forced_rows, forcings
from harness.verify.judging.load_part import asked_of

_AROUND = 12
"""Tokens on each side of the divergence."""
_MOST_SPELLED = 400
"""Forcings whose spelling of tokens is read, besides those of the outputs that are asked about."""


@dataclass(frozen=True, slots=True)
class Position:
    """One output token. Log-probabilities are nats; None where a server reported none."""

    index: int
    """From 0."""
    served: int
    """Token id."""
    best: int | None
    """Token id of the best token by teacher forcing; None if it is not known."""
    served_logprob: float | None
    """Of the served token, as served."""
    forced_logprob: float | None
    """Of the served token, as forced."""
    best_logprob: float | None
    """Of the best token, as forced."""

    @property
    def regret(self) -> float | None:
        """How far the served token is behind the best one by teacher forcing, nats; 0 if it is the best."""
        if self.forced_logprob is None or self.best_logprob is None:
            return None
        return max(0.0, self.best_logprob - self.forced_logprob)

    @property
    def drift(self) -> float | None:
        """How far its log-probability as served differs from the one as forced, nats."""
        if self.forced_logprob is None or self.served_logprob is None:
            return None
        return abs(self.served_logprob - self.forced_logprob)


@dataclass(frozen=True, slots=True)
class Divergence:
    """One output beside what its prompt has without KV transfer."""

    request_id: str
    choice: int
    """Which of the request's answers, from 0."""
    at: int | None
    """Index of the token that ``around`` is about: the first wrong one, else the first that is not the best one, else
    the one whose log-probability differs most. None: nothing is known of single tokens."""
    differs: bool
    """Whether the token at ``at`` is another one than that which the prompt has."""
    around: tuple[Position, ...]
    """The tokens around it."""
    served: Choice
    right: Choice | None
    """A right answer to the same prompt; None if nobody asked for it."""
    right_from: Purpose | None
    """What the right answer was asked for: REFERENCE or CONTROL, without transfer; or RETRY, by the path under test."""
    right_differs_at: int | None
    """Index of the first token in which the two answers differ; None: in none, or there is one answer only."""


def divergences(history: History, compared: Iterable[Compared]) -> dict[str, Divergence]:
    """By request id, for each of ``compared`` whose answer has token ids."""
    wanted = {one.request_id: one for one in compared}
    operations = {o.request.request_id: o for o in history.operations() if o.request.request_id in wanted}
    forced, right = forcings(history), _right_answers(history, wanted)
    return {
        who: _divergence(operation, wanted[who], forced.get(who, ()), right.get(who))
        for who, operation in operations.items()
        if any(choice.token_ids for choice in operation.ended.choices)
    }


def spellings(history: History, request_ids: Collection[str]) -> dict[int, str]:
    """Texts of tokens by id, as servers spelled them at the ends of forced prompts: never complete.

    The tokens of the outputs ``request_ids`` are looked for first.
    """
    forced = forcings(history)
    first = [one for who in request_ids for one in forced.get(who, ())]
    others = (one for who, found in forced.items() if who not in request_ids for one in found)
    known: dict[int, str] = {}
    for operation in (*first, *(one for one, _ in zip(others, range(_MOST_SPELLED), strict=False))):
        known.update(_spelled(operation))
    return known


def _spelled(forcing: Operation) -> Mapping[int, str]:
    prompt, end = forcing.request.prompt, forcing.ended.prompt_end
    if not end or not isinstance(prompt, tuple):
        return {}
    ids = (token for token in prompt[-len(end) :] if isinstance(token, int))
    return dict(zip(ids, end, strict=False))


def _right_answers(history: History, wanted: Collection[str]) -> dict[str, Operation]:
    """Right answers to the same prompts. A reference comes before a control request, and that before a retry."""
    found: dict[str, Operation] = {}
    right = {request.request_id for request, one in look_at_outputs(history).retried if one.match in RIGHT}
    for operation in asked_of(history):
        if operation.request.request_id in right and operation.request.about in wanted:
            found[str(operation.request.about)] = operation
    for purpose in (Purpose.CONTROL, Purpose.REFERENCE):
        for operation in asked_of(history):
            about = str(operation.request.about)
            if operation.request.purpose is purpose and about in wanted and operation.outcome is Outcome.OK:
                found[about] = operation
    return found


def _divergence(
    operation: Operation, compared: Compared, candidates: Sequence[Operation], right: Operation | None
) -> Divergence:
    place, rows = _choice_to_show(operation, candidates)
    served = operation.ended.choices[place]
    other = right.ended.choices[place] if right and place < len(right.ended.choices) else None
    differs_at = None if other is None else _differs_at(served, other)
    at = _at(compared.first, rows, served, differs_at)
    around = () if at is None else _around(served, rows, at)
    here = next((one for one in around if one.index == at), None)
    behind = here is not None and here.regret is not None and here.regret > 0
    return Divergence(
        operation.request.request_id,
        place,
        at,
        behind or (at is not None and at == differs_at),
        around,
        served,
        other,
        None if other is None or right is None else right.request.purpose,
        differs_at,
    )


def _choice_to_show(operation: Operation, candidates: Sequence[Operation]) -> tuple[int, Sequence[TokenLogprob]]:
    """The first choice with a token that is not the best one, else the first; and its tokens as forced, if known."""
    prompt = operation.prompt_token_ids
    forced = [
        [] if prompt is None or isinstance(rows := forced_rows(prompt, choice, candidates), str) else rows
        for choice in operation.ended.choices
    ]
    place = next((i for i, rows in enumerate(forced) if any(_behind(row) > 0 for row in rows)), 0)
    return place, forced[place]


def _behind(row: TokenLogprob) -> float:
    return 0.0 if row.runner_up is None else max(0.0, row.runner_up - row.logprob)


def _differs_at(served: Choice, right: Choice) -> int | None:
    if not right.token_ids or served.token_ids == right.token_ids:
        return None
    return first_difference(served.token_ids, right.token_ids)


def _at(first: int | None, rows: Sequence[TokenLogprob], served: Choice, differs_at: int | None) -> int | None:
    if first is not None:
        return first
    behind = next((i for i, row in enumerate(rows) if _behind(row) > 0), None)
    if behind is not None or not rows:
        return differs_at if behind is None else behind
    drifts = [_drift(row, served, i) for i, row in enumerate(rows)]
    return max(range(len(drifts)), key=drifts.__getitem__)


def _drift(row: TokenLogprob, served: Choice, index: int) -> float:
    own = served.logprobs[index] if index < len(served.logprobs) else None
    return 0.0 if own is None or math.isnan(own.logprob) else abs(own.logprob - row.logprob)


def _around(served: Choice, rows: Sequence[TokenLogprob], at: int) -> tuple[Position, ...]:
    last = min(len(served.token_ids), at + _AROUND + 1)
    return tuple(_position(served, rows, index) for index in range(max(0, at - _AROUND), last))


def _position(served: Choice, rows: Sequence[TokenLogprob], index: int) -> Position:
    own = served.logprobs[index] if index < len(served.logprobs) else None
    row = rows[index] if index < len(rows) else None
    ahead = row is not None and row.runner_up is not None and row.runner_up > row.logprob
    return Position(
        index,
        served.token_ids[index],
        None if row is None else row.runner_up_id if ahead else row.token_id,
        None if own is None else own.logprob,
        None if row is None else row.logprob,
        None if row is None else row.runner_up if ahead else row.logprob,
    )
