"""Operations, and the queries of a history that checkers need."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from harness.deferred import tokens_put_away
from harness.history.ends import Ended, Ending, Outcome
from harness.history.entries import DeadProcess, E, Entry, RunEnded, Sent
from harness.history.measured import Scraped
from harness.scenario import Request, Route


@dataclass(frozen=True, slots=True)
class Operation:
    """A request and its end; the outcome is ``INFO`` if the history has no end."""

    sent: Sent
    ended: Ended

    @property
    def request(self) -> Request:
        """The request that was sent."""
        return self.sent.request

    @property
    def outcome(self) -> Outcome:
        """The operation's outcome."""
        return self.ended.outcome

    @property
    def prompt_token_ids(self) -> tuple[int, ...] | None:
        """The prompt's token ids as sent, or as reported by the server if a text was sent; None if not reported."""
        prompt = self.request.prompt
        if isinstance(prompt, str):
            return self.ended.prompt_token_ids
        return _ids_alone(prompt) or self.ended.prompt_token_ids

    @property
    def prompt_tokens(self) -> int:
        """The number of ``prompt_token_ids``, 0 if they are not known; mostly known without reading them."""
        return tokens_put_away(self.request) or len(self.prompt_token_ids or ())


@dataclass(frozen=True, slots=True)
class History:
    """A run's entries, and the queries that checkers need."""

    entries: tuple[Entry, ...]
    _operations: tuple[Operation, ...] = field(init=False, repr=False, compare=False)
    _others: tuple[Entry, ...] = field(init=False, repr=False, compare=False)
    """The entries that are no part of an operation: a small part of them all."""

    def __post_init__(self) -> None:
        self._set(tuple(_pair(self.entries)), tuple(_others(self.entries)))

    def _set(self, operations: tuple[Operation, ...], others: tuple[Entry, ...]) -> None:
        object.__setattr__(self, "_operations", operations)
        object.__setattr__(self, "_others", others)

    def followed_by(self, later: Iterable[Entry]) -> "History":
        """The history of these and of later entries, equal to one that is made from all of them at once.

        Operations that have ended stay the same objects, and are not looked at again: a load of 100,000 requests is
        followed by dozens of small steps of verification.
        """
        further = History(tuple(later))
        ended = {entry.request_id for entry in further.entries if isinstance(entry, Ended)}
        ended.difference_update(operation.request.request_id for operation in further._operations)
        if ended:
            # Requests of the earlier part have ended.
            return History(self.entries + further.entries)
        made = object.__new__(History)
        object.__setattr__(made, "entries", self.entries + further.entries)
        made._set(self._operations + further._operations, self._others + further._others)
        return made

    def operations(
        self, *, scenario: str | None = None, phase: str | None = None, route: Route | None = None
    ) -> tuple[Operation, ...]:
        """Operations in the order in which they were sent, filtered by the given arguments."""
        if scenario is None and phase is None and route is None:
            return self._operations
        return tuple(
            operation
            for operation in self._operations
            if (scenario is None or operation.sent.scenario == scenario)
            and (phase is None or operation.sent.phase == phase)
            and (route is None or operation.request.route == route)
        )

    def scrapes(self, *, scenario: str, phase: str, label: str) -> dict[str, Scraped]:
        """Readings by server name, without servers whose reading failed."""
        return {
            entry.server: entry
            for entry in self._others
            if isinstance(entry, Scraped) and (entry.scenario, entry.phase, entry.label) == (scenario, phase, label)
        }

    def of(self, kind: type[E]) -> Iterator[E]:
        """Entries of one kind, in order."""
        entries = self.entries if issubclass(kind, Sent | Ended) else self._others
        return (entry for entry in entries if isinstance(entry, kind))

    @property
    def ended_early(self) -> bool:
        """Whether the run was interrupted or killed, or stopped by an error."""
        return all(entry.interrupted for entry in self.of(RunEnded))

    @property
    def died(self) -> tuple[DeadProcess, ...]:
        """Processes that the harness had started and that ended by themselves; usually none."""
        return tuple(one for entry in self.of(RunEnded) for one in entry.died)


def _ids_alone(prompt: tuple[object, ...]) -> tuple[int, ...]:
    # A prompt holds token ids or messages, never both. Checkers call this many times for each operation.
    return cast("tuple[int, ...]", prompt) if prompt and isinstance(prompt[0], int) else ()


def _pair(entries: Iterable[Entry]) -> Iterator[Operation]:
    ends = {entry.request_id: entry for entry in entries if isinstance(entry, Ended)}
    for entry in entries:
        if isinstance(entry, Sent):
            yield Operation(entry, ends.get(entry.request.request_id) or _no_end(entry))


def _others(entries: Iterable[Entry]) -> Iterator[Entry]:
    return (entry for entry in entries if not isinstance(entry, Sent | Ended))


def _no_end(sent: Sent) -> Ended:
    cause = "the history has no end of this request"
    return Ended(sent.at, sent.request.request_id, Outcome.INFO, cause, ending=Ending.NO_END)
