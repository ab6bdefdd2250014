"""An answer as it grows: the chunks of a stream, or one body, read into the history's form. No I/O.

Both endpoints, streamed and not, differ only in where a field stands; what stands nowhere stays None. What cannot
be read is kept as ``fault``, in words, and never raised: it is the deployment's doing, not the harness's.

What gateways do and no token is lost by is passed over: an empty event, a second end marker, an event whose ``choices``
are null or that tells the usage alone, one that has neither (a ping), a choice without its number where that is 0, a
last event that no empty line ends.
"""

import json
from typing import Any

from harness.history import END_SPELLED, Choice, TokenLogprob, Usage
from harness.load import logprobs
from harness.load.alignment import Alignment
from harness.load.logprobs import MOST_IDS, UNREADABLE
from harness.load.quoting import quoted

_DONE = b"[DONE]"
_ERRORS = ("error", "errors", "detail", "message")
"""Where servers and gateways write an error in place of an answer."""


class _Growing:
    __slots__ = ("alignment", "finish_reason", "stop_reason", "text", "token_ids")

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.text: list[str] = []
        self.alignment = Alignment()
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None

    def grown(self) -> Choice:
        told = self.alignment.of(self.token_ids)
        return Choice(tuple(self.token_ids), "".join(self.text), self.finish_reason, told, self.stop_reason)


class Answer:
    """What has been said so far."""

    __slots__ = (
        "_choices",
        "_prompt_logprobs",
        "_text_times",
        "_token_times",
        "aside",
        "done_at",
        "fault",
        "prompt_token_ids",
        "said_error",
        "tokens_per_chunk",
        "usage",
    )

    def __init__(self) -> None:
        self._choices: dict[int, _Growing] = {}
        self._prompt_logprobs: list[Any] | None = None
        self._token_times: list[float] = []
        self._text_times: list[float] = []
        self.prompt_token_ids: tuple[int, ...] | None = None
        self.usage: Usage | None = None
        self.tokens_per_chunk: list[int] = []
        """Of the first choice; chunks without a token (a role, a finish) are left out."""
        self.done_at: float | None = None
        """When the end marker, or the whole body, was there; None: never."""
        self.fault = ""
        """The first thing that was wrong with it: an error event, a chunk that cannot be read."""
        self.said_error = False
        """Whether that is an error that the server told in place of an answer."""
        self.aside = ""
        """What stood in the stream, or as the body, and is no part of an answer, in words."""

    def event(self, payload: bytes, at: float) -> None:
        """Take the payload of one server-sent event that arrived at ``at``."""
        if not payload or payload.isspace():
            return
        if payload.strip() == _DONE:
            self.done_at = at if self.done_at is None else self.done_at
        elif self.done_at is None:
            self._take(payload, at)
        else:
            self._take_late(payload)

    def last_event(self, payload: bytes, at: float) -> None:
        """Take what stands at the end of a stream that was not cut, without the empty line that ends an event."""
        if payload.strip() == _DONE or isinstance(_parsed(payload), dict):
            self.event(payload, at)

    def body(self, payload: bytes, at: float) -> None:
        """Take the whole body of an answer that is not streamed."""
        self._take(payload, None)
        self.done_at = at

    def take_aside(self, payload: bytes) -> None:
        """Take text that stood in the stream and was no event: it adds nothing, but an error may be told there."""
        self.aside = quoted(payload)
        if error := _error_of(_parsed(payload)):
            self._blame_server(error)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What each choice has come to, by index."""
        return tuple(self._choices[index].grown() for index in sorted(self._choices))

    @property
    def indices(self) -> tuple[int, ...]:
        """The number of each choice, as the server counts them; ascending."""
        return tuple(sorted(self._choices))

    @property
    def token_times(self) -> list[float]:
        """Arrivals of the first choice's tokens, a chunk's at once; where no token ids came, of its pieces of text."""
        return self._token_times or self._text_times

    @property
    def prompt_end(self) -> tuple[str, ...]:
        """The spelling of the prompt's last tokens, told with its log-probabilities."""
        return logprobs.spelled(self._prompt_logprobs, END_SPELLED) if isinstance(self._prompt_logprobs, list) else ()

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """One per prompt token; None when the server sent none (it never does in a stream) or unreadable ones."""
        if self._prompt_logprobs is None:
            return None
        try:
            return logprobs.of_prompt(self._prompt_logprobs, self.prompt_token_ids)
        except UNREADABLE:
            self._blame(f"unreadable prompt_logprobs: {quoted(self._prompt_logprobs)}")
            return None

    def _take(self, payload: bytes, at: float | None) -> None:
        try:
            self._read(json.loads(payload), at)
        except UNREADABLE as error:
            self._blame(f"unreadable chunk ({type(error).__name__}: {quoted(error)}): {quoted(payload)}")

    def _take_late(self, payload: bytes) -> None:
        """What follows the end marker may tell the usage; tokens would be lost to whoever stops reading there."""
        message = _parsed(payload)
        if error := _error_of(message):
            self._blame_server(error)
        elif not isinstance(message, dict) or message.get("choices") or "usage" not in message:
            self._blame(f"something follows the end marker: {quoted(payload)}")
        else:
            self._take(payload, None)

    def _read(self, message: Any, at: float | None) -> None:
        if error := _error_of(message):
            self._blame_server(error)
            return
        if not isinstance(message, dict):
            raise TypeError("it is no JSON object")
        choices = message.get("choices")
        if choices is None and not ("choices" in message or message.get("usage")):
            self.aside = self.aside or quoted(message)
        for choice in choices or ():
            self._read_choice(choice, at)
        if usage := message.get("usage"):
            self.usage = _usage(usage) or self.usage
        self._read_prompt(message)  # where chat puts them

    def _read_choice(self, choice: dict[str, Any], at: float | None) -> None:
        index = _natural(choice.get("index", 0))  # what writes JSON from protocol buffers leaves a 0 out
        growing = self._choices.setdefault(index, _Growing())
        token_ids, text = _ids(choice.get("token_ids")), _text(choice)
        before = len(growing.token_ids)
        growing.token_ids.extend(token_ids)
        if text:
            growing.text.append(text)
        if (written := choice.get("logprobs")) and (rows := logprobs.read_rows(written)):
            growing.alignment.add(before, len(growing.token_ids), rows)
        growing.finish_reason = _optional(choice.get("finish_reason"), str) or growing.finish_reason
        if (stop_reason := _optional(choice.get("stop_reason"), int | str)) is not None:
            growing.stop_reason = stop_reason
        if index == 0:
            self._read_prompt(choice)  # where completions put them
            self._note_arrival(len(token_ids), text, at)

    def _read_prompt(self, holder: dict[str, Any]) -> None:
        if token_ids := _ids(holder.get("prompt_token_ids")):
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

    def _blame_server(self, error: str) -> None:
        self.said_error = self.said_error or not self.fault
        self._blame(f"error inside a 200: {error}")

    def _blame(self, fault: str) -> None:
        self.fault = self.fault or fault


def _parsed(payload: bytes) -> Any:
    """None where it is no JSON."""
    try:
        return json.loads(payload)
    except UNREADABLE:
        return None


def _error_of(message: Any) -> str:
    """The error that a message tells in place of an answer, in the server's own words; empty where it tells none."""
    if isinstance(message, list):  # some gateways put the error object into one
        return next(filter(None, (_error_of(one) for one in message if isinstance(one, dict))), "")
    if not isinstance(message, dict):
        return ""
    if message.get("error") is not None:
        return quoted(message["error"])
    if message.get("choices") or message.get("usage"):
        return ""
    return next((quoted(message[key]) for key in _ERRORS if message.get(key)), "")


def _usage(written: Any) -> Usage | None:
    """None where a count is missing."""
    counts = written.get("prompt_tokens"), written.get("completion_tokens")
    return None if None in counts else Usage(_natural(counts[0]), _natural(counts[1]), _cached_tokens(written))


def _ids(written: Any) -> list[int]:
    if written is None:
        return []
    if not isinstance(written, list):
        raise TypeError(f"token ids are no list but {type(written).__name__}")
    for token in written:
        if type(token) is not int or not 0 <= token < MOST_IDS:
            raise ValueError(f"{quoted(token)} is no token id")
    return written


def _natural(written: Any) -> int:
    if type(written) is not int or not 0 <= written < MOST_IDS:
        raise ValueError(f"{quoted(written)} is no count")
    return written


def _optional(written: Any, kind: Any) -> Any:
    if written is not None and (isinstance(written, bool) or not isinstance(written, kind)):
        raise TypeError(f"{quoted(written)} stands where {kind} was expected")
    return written


def _cached_tokens(usage: dict[str, Any]) -> int | None:
    """A detail that nobody has to give: what is not a count is as good as not said, and no fault of the answer."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if type(cached) is int and cached >= 0 else None


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return _optional(choice["text"], str) or ""
    message = choice.get("delta") or choice.get("message") or {}
    return _optional(message.get("content"), str) or ""
