"""One choice of an answer, as far as it has arrived. Pure."""

from dataclasses import dataclass, field
from typing import Any

from harness.history import Choice
from harness.load.answers import logprobs
from harness.load.answers.alignment import Alignment
from harness.load.answers.parts import Part


@dataclass(slots=True)
class PartialChoice:
    """What the chunks of one choice have brought so far."""

    token_ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    alignment: Alignment = field(default_factory=Alignment)
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def take_rows(self, written: dict[str, Any], first: int, *, keep_first: bool) -> None:
        """Read the rows of a chunk whose first token is at the position ``first``."""
        after = len(self.token_ids)
        first_of = self.alignment.first_of(first, after) if keep_first else 0
        if rows := logprobs.read_rows(written, first_of=first_of):
            self.alignment.add(first, after, rows)

    def extend(self, part: Part) -> None:
        """Add what several consecutive chunks hold of this choice."""
        first = len(self.token_ids)
        self.token_ids += part.token_ids
        self.text.append(part.text)
        self.finish_reason = part.finish_reason or self.finish_reason
        self.stop_reason = self.stop_reason if part.stop_reason is None else part.stop_reason
        if part.logprobs:
            self.alignment.add_exact(first, part.logprobs, part.named if part.index == 0 else ())

    def so_far(self) -> Choice:
        """The history's form."""
        rows = self.alignment.of(self.token_ids)
        return Choice(tuple(self.token_ids), "".join(self.text), self.finish_reason, rows, self.stop_reason)
