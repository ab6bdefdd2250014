"""An answer as it grows: the chunks of a stream, or one body, read into the history's form. No I/O.

Both endpoints, streamed and not, differ only in where a field stands; what stands nowhere stays None. What cannot
be read is kept as ``fault``, in words, and never raised: it is the deployment's doing, not the harness's.
"""

import json
from typing import Any

from harness.history import Choice, TokenLogprob, Usage
from harness.load import logprobs

_DONE = b"[DONE]"
_SHOWN = 300
"""Characters of a server's words that a cause quotes."""


class _Growing:
    __slots__ = ("finish_reason", "logprobs", "text", "token_ids")

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.text: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None

    def grown(self) -> Choice:
        return Choice(tuple(self.token_ids), "".join(self.text), self.finish_reason, tuple(self.logprobs))


class Answer:
    """What has been said so far."""

    __slots__ = (
        "_choices",
        "_prompt_logprobs",
        "done_at",
        "fault",
        "prompt_token_ids",
        "token_times",
        "tokens_per_chunk",
        "usage",
    )

    def __init__(self) -> None:
        self._choices: dict[int, _Growing] = {}
        self._prompt_logprobs: list[Any] | None = None
        self.prompt_token_ids: tuple[int, ...] | None = None
        self.usage: Usage | None = None
        self.token_times: list[float] = []
        """Of the first choice; a chunk's tokens all arrive with it."""
        self.tokens_per_chunk: list[int] = []
        """Of the first choice; chunks without a token (a role, a finish) are left out."""
        self.done_at: float | None = None
        """When the end marker, or the whole body, was there; None: never."""
        self.fault = ""
        """The first thing that was wrong with it: an error event, a chunk that cannot be read."""

    def event(self, payload: bytes, at: float) -> None:
        """Take the payload of one server-sent event that arrived at ``at``."""
        if self.done_at is not None:
            self._blame(f"something follows the end marker: {_shown(payload)}")
        elif payload == _DONE:
            self.done_at = at
        else:
            self._take(payload, at)

    def body(self, payload: bytes, at: float) -> None:
        """Take the whole body of an answer that is not streamed."""
        self._take(payload, None)
        self.done_at = at

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What each choice has come to, by index."""
        return tuple(self._choices[index].grown() for index in sorted(self._choices))

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """One per prompt token; None when the server sent none (it never does in a stream) or unreadable ones."""
        if self._prompt_logprobs is None:
            return None
        try:
            return logprobs.of_prompt(self._prompt_logprobs, self.prompt_token_ids)
        except (ValueError, TypeError, LookupError, AttributeError):
            self._blame(f"unreadable prompt_logprobs: {str(self._prompt_logprobs)[:_SHOWN]}")
            return None

    def _take(self, payload: bytes, at: float | None) -> None:
        try:
            self._read(json.loads(payload), at)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._blame(f"unreadable chunk ({type(error).__name__}: {error}): {_shown(payload)}")

    def _read(self, message: dict[str, Any], at: float | None) -> None:
        if message.get("error") is not None:
            self._blame(f"error inside a 200: {str(message['error'])[:_SHOWN]}")
            return
        for choice in message["choices"]:
            self._read_choice(choice, at)
        if usage := message.get("usage"):
            self.usage = Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]), _cached_tokens(usage))
        self._read_prompt(message)  # where chat puts them

    def _read_choice(self, choice: dict[str, Any], at: float | None) -> None:
        index = choice["index"]
        growing = self._choices.setdefault(index, _Growing())
        token_ids = choice.get("token_ids") or ()
        growing.token_ids.extend(token_ids)
        if text := _text(choice):
            growing.text.append(text)
        if written := choice.get("logprobs"):
            growing.logprobs.extend(logprobs.of_tokens(written, token_ids))
        growing.finish_reason = choice.get("finish_reason") or growing.finish_reason
        if index == 0:
            self._read_prompt(choice)  # where completions put them
            self._note_arrival(len(token_ids), at)

    def _read_prompt(self, holder: dict[str, Any]) -> None:
        if token_ids := holder.get("prompt_token_ids"):
            self.prompt_token_ids = tuple(token_ids)
        if (written := holder.get("prompt_logprobs")) is not None:
            self._prompt_logprobs = written

    def _note_arrival(self, tokens: int, at: float | None) -> None:
        if tokens and at is not None:
            self.token_times.extend([at] * tokens)
            self.tokens_per_chunk.append(tokens)

    def _blame(self, fault: str) -> None:
        self.fault = self.fault or fault


def _cached_tokens(usage: dict[str, Any]) -> int | None:
    """A detail that nobody has to give: what is not a count is as good as not said, and no fault of the answer."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if type(cached) is int and cached >= 0 else None


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return choice["text"] or ""
    message = choice.get("delta") or choice.get("message") or {}
    return message.get("content") or ""


def _shown(payload: bytes) -> str:
    return payload[:_SHOWN].decode("utf-8", "replace")
