"""Reads an answer, from the chunks of a stream or from one body, into the history's form. No I/O.

The answers of both endpoints, streamed or not, differ only in where a field stands; a field that is absent stays None.
An unreadable part raises no exception but is described in ``fault``, since the deployment caused it.

Deviations of gateways that lose no token are ignored: an empty event, a second end marker, an event whose ``choices``
are null, an event with the usage alone or with nothing (a ping), a choice that leaves out its index 0, a last event
without the empty line that should end it.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from harness.history import END_SPELLED, Choice, Named, TokenLogprob, Usage
from harness.load.answers import chunks, fields, logprobs
from harness.load.answers.chunks import Batch
from harness.load.answers.logprobs import UNREADABLE
from harness.load.answers.partial import PartialChoice
from harness.load.answers.parts import Part
from harness.load.answers.quoting import quoted

_DONE = b"[DONE]"
_HAS_REFERENCE = re.compile(rb'"kv_transfer_params":\s*\{')
"""A whole answer with this is read through ``json``: few answers have a reference."""
_ERROR_KEYS = ("error", "errors", "detail", "message")
"""The fields in which servers and gateways report an error instead of an answer."""


@dataclass(slots=True)
class Answer:
    """One answer, as far as it has arrived."""

    _choices: dict[int, PartialChoice] = field(default_factory=dict)
    _prompt_logprobs: list[Any] | None = None
    _token_times: list[float] = field(default_factory=list)
    _text_times: list[float] = field(default_factory=list)
    prompt_token_ids: tuple[int, ...] | None = None
    usage: Usage | None = None
    tokens_per_chunk: list[int] = field(default_factory=list)
    """Tokens in each chunk of the first choice; chunks without a token (a role, a finish reason) are left out."""
    done_at: float | None = None
    """Seconds on the clock when the end marker or the whole body had arrived; None if it never did."""
    fault: str = ""
    """A description of the answer's first fault: an error event, an unreadable chunk."""
    error_reported: bool = False
    """Whether ``fault`` is an error that the server reported instead of an answer."""
    reference: str | None = None
    """The object ``kv_transfer_params`` of a whole answer, as JSON; None if there is none."""
    stray_text: str = ""
    """The beginning of text in the stream or body that is not part of an answer."""

    def event(self, payload: bytes, at: float) -> None:
        """Read the payload of one server-sent event that arrived at ``at``."""
        if not payload or payload.isspace():
            return
        if payload.strip() == _DONE:
            self.done_at = at if self.done_at is None else self.done_at
        elif self.done_at is None:
            self._read(payload, at)
        else:
            self._read_late(payload)

    def extend(self, batch: Batch) -> None:
        """Add what many events hold, as ``event`` would for each of them; the end marker must not have come before."""
        for part in batch.parts:
            self._choices.setdefault(part.index, PartialChoice()).extend(part)
            if part.index == 0:
                self._extend_first(part)
        self.usage = batch.usage or self.usage
        self.done_at = batch.done_at
        if batch.prompt_token_ids:
            self.prompt_token_ids = tuple(batch.prompt_token_ids)
        self._prompt_logprobs = self._prompt_logprobs if batch.prompt_logprobs is None else batch.prompt_logprobs

    def _extend_first(self, part: Part) -> None:
        if part.prompt_token_ids:
            self.prompt_token_ids = tuple(part.prompt_token_ids)
        self._token_times += part.token_times
        self._text_times += part.text_times
        self.tokens_per_chunk += part.tokens_per_chunk

    def last_event(self, payload: bytes, at: float) -> None:
        """Read the last event of a stream that was not cut, whose ending empty line is missing."""
        if payload.strip() == _DONE or isinstance(_parsed(payload), dict):
            self.event(payload, at)

    def body(self, payload: bytes, at: float, *, typed: bool = True) -> None:
        """Read the body of an answer that is not streamed. ``typed`` False: through ``json`` (for comparisons)."""
        if typed and not _HAS_REFERENCE.search(payload) and (batch := chunks.read_body(payload)) is not None:
            self.extend(batch)
        else:
            self._read(payload, None)
        self.done_at = at

    def read_stray(self, payload: bytes) -> None:
        """Read text in the stream that is not an event: it is not part of the answer, but may report an error."""
        self.stray_text = quoted(payload)
        if error := _error_of(_parsed(payload)):
            self._note_error(error)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The choices as far as they have arrived, by index."""
        return tuple(self._choices[index].so_far() for index in sorted(self._choices))

    @property
    def first_logprobs(self) -> Named:
        """Every token that the answer names for the first output token of the first choice."""
        first = self._choices.get(0)
        return () if first is None else first.alignment.named_at_first(first.token_ids)

    @property
    def indices(self) -> tuple[int, ...]:
        """The index of each choice in the server's numbering, ascending."""
        return tuple(sorted(self._choices))

    @property
    def token_times(self) -> list[float]:
        """Arrival times of the first choice's tokens (all tokens of a chunk at once), or of its texts without ids."""
        return self._token_times or self._text_times

    @property
    def prompt_end(self) -> tuple[str, ...]:
        """The prompt's last tokens as text, from its log-probabilities."""
        return logprobs.spelled(self._prompt_logprobs, END_SPELLED) if isinstance(self._prompt_logprobs, list) else ()

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """One entry per prompt token; None if the server sent none (vLLM sends none in a stream) or unreadable ones."""
        if self._prompt_logprobs is None:
            return None
        try:
            return logprobs.of_prompt(self._prompt_logprobs, self.prompt_token_ids)
        except UNREADABLE:
            self._note_fault(f"unreadable prompt_logprobs: {quoted(self._prompt_logprobs)}")
            return None

    def _read(self, payload: bytes, at: float | None) -> None:
        try:
            self._read_message(json.loads(payload), at)
        except UNREADABLE as error:
            self._note_fault(f"unreadable chunk ({type(error).__name__}: {quoted(error)}): {quoted(payload)}")

    def _read_late(self, payload: bytes) -> None:
        """Only the usage may follow the end marker: a client that stops at the marker would lose tokens."""
        message = _parsed(payload)
        if error := _error_of(message):
            self._note_error(error)
        elif not isinstance(message, dict) or message.get("choices") or "usage" not in message:
            self._note_fault(f"an event follows the end marker: {quoted(payload)}")
        else:
            self._read(payload, None)

    def _read_message(self, message: Any, at: float | None) -> None:
        if error := _error_of(message):
            self._note_error(error)
            return
        if not isinstance(message, dict):
            raise TypeError("not a JSON object")
        choices = message.get("choices")
        if choices is None and not ("choices" in message or message.get("usage")):
            self.stray_text = self.stray_text or quoted(message)
        for choice in choices or ():
            self._read_choice(choice, at)
        if usage := message.get("usage"):
            self.usage = fields.usage(usage) or self.usage
        if params := message.get("kv_transfer_params"):
            self.reference = json.dumps(params)
        # Chat writes the prompt's fields here, completions in the choice.
        self._read_prompt(message)

    def _read_choice(self, choice: dict[str, Any], at: float | None) -> None:
        # Gateways that write JSON from protocol buffers leave out an index of 0.
        index = fields.natural(choice.get("index", 0))
        partial = self._choices.setdefault(index, PartialChoice())
        token_ids, text = fields.ids(choice.get("token_ids")), fields.text(choice)
        before = len(partial.token_ids)
        partial.token_ids.extend(token_ids)
        if text:
            partial.text.append(text)
        if written := choice.get("logprobs"):
            partial.take_rows(written, before, keep_first=index == 0)
        partial.finish_reason = fields.optional(choice.get("finish_reason"), str) or partial.finish_reason
        if (stop_reason := fields.optional(choice.get("stop_reason"), int | str)) is not None:
            partial.stop_reason = stop_reason
        if index == 0:
            self._read_prompt(choice)
            self._note_arrival(len(token_ids), text, at)

    def _read_prompt(self, holder: dict[str, Any]) -> None:
        if token_ids := fields.ids(holder.get("prompt_token_ids")):
            self.prompt_token_ids = tuple(token_ids)
        if (written := holder.get("prompt_logprobs")) is not None:
            self._prompt_logprobs = written

    def _note_arrival(self, tokens: int, text: str, at: float | None) -> None:
        if at is None:
            return
        if tokens:
            self._token_times.extend([at] * tokens)
            self.tokens_per_chunk.append(tokens)
        elif text:
            self._text_times.append(at)

    def _note_error(self, error: str) -> None:
        self.error_reported = self.error_reported or not self.fault
        self._note_fault(f"error inside a 200: {error}")

    def _note_fault(self, fault: str) -> None:
        self.fault = self.fault or fault


def _parsed(payload: bytes) -> Any:
    """The JSON value; None if the payload is not JSON."""
    try:
        return json.loads(payload)
    except UNREADABLE:
        return None


def _error_of(message: Any) -> str:
    """The error that a message reports instead of an answer, in the server's own words; empty if it reports none."""
    # Some gateways wrap the error object in a list.
    if isinstance(message, list):
        return next(filter(None, (_error_of(one) for one in message if isinstance(one, dict))), "")
    if not isinstance(message, dict):
        return ""
    if message.get("error") is not None:
        return quoted(message["error"])
    if message.get("choices") or message.get("usage"):
        return ""
    return next((quoted(message[key]) for key in _ERROR_KEYS if message.get(key)), "")
