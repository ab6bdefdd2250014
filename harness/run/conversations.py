"""Conversations: a later turn's prompt is completed with the earlier turns when it is sent. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from harness.errors import HarnessError
from harness.history import Choice, Ended, Outcome
from harness.scenario import Message, Phase, Prompt, Request

T = TypeVar("T")


class Unanswered(Exception):  # noqa: N818 - reads as what happened
    """The previous turn has no answer, so the conversation cannot continue."""


class Conversations:
    """Remembers the prompts and answers of requests that other requests continue."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._continued = {request.continues for request in requests}
        self._turns: dict[str, tuple[Request, Ended]] = {}

    def remember(self, request: Request, ended: Ended) -> None:
        """Remember how ``request`` ended, if other requests continue it. Its prompt must be whole."""
        if request.request_id in self._continued:
            self._turns[request.request_id] = request, ended

    def before(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Ended]]:
        """The turns that the requests continue, with their ends, as far as they have ended."""
        for one in requests:
            if one.continues in self._turns:
                yield self._turns[one.continues]

    def whole(self, request: Request) -> Request:
        """The request with its whole prompt.

        Raises:
            Unanswered: the previous turn has not ended, or did not end OK.
            HarnessError: the prompts of the two turns are of different kinds.

        """
        if request.continues is None:
            return request
        before, ended = self._turns.get(request.continues, (None, None))
        if before is None or ended is None:
            raise Unanswered(f"not sent: it continues {request.continues}, which has not ended")
        if ended.outcome is not Outcome.OK or not ended.choices:
            raise Unanswered(f"not sent: it continues {request.continues}, which has no answer ({ended.cause})")
        prompt = _joined(before.prompt, ended.choices[0], request.prompt)
        if prompt is None:
            raise HarnessError(
                f"Request {request.request_id} continues {request.continues}, and their prompts are of different "
                "kinds: give both as token ids, both as text, or both as messages."
            )
        return replace(request, prompt=prompt, continues=None)


def next_turns(phase: Phase) -> dict[str, Request]:
    """The next turn of each request of the phase that has one, by the request's id."""
    return {one.continues: one for one in phase.requests if one.continues and one.request_id in phase.think_times}


def _joined(before: Prompt, answer: Choice, after: Prompt) -> Prompt | None:
    """Prompt, answer and next prompt as one prompt; None if the two prompts are of different kinds."""
    if isinstance(before, str) and isinstance(after, str):
        return before + answer.text + after
    if isinstance(before, str) or isinstance(after, str):
        return None
    turns = *_of(Message, before), Message("assistant", answer.text), *_of(Message, after)
    if len(turns) == len(before) + 1 + len(after):
        return turns
    ids = *_of(int, before), *answer.token_ids, *_of(int, after)
    return ids if len(ids) == len(before) + len(answer.token_ids) + len(after) else None


def _of(kind: type[T], items: Iterable[object]) -> tuple[T, ...]:
    return tuple(item for item in items if isinstance(item, kind))
