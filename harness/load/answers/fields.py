"""Reads single fields of an answer, whose types a server may get wrong. Pure.

All functions raise one of ``harness.load.answers.logprobs.UNREADABLE`` for a value of another type.
"""

from typing import Any

from harness.history import Usage
from harness.load.answers.logprobs import MOST_IDS
from harness.load.answers.quoting import quoted


def usage(written: Any) -> Usage | None:
    """The token counts; None if one is missing."""
    counts = written.get("prompt_tokens"), written.get("completion_tokens")
    return None if None in counts else Usage(natural(counts[0]), natural(counts[1]), _cached_tokens(written))


def ids(written: Any) -> list[int]:
    """A list of token ids; empty if absent."""
    if written is None:
        return []
    if not isinstance(written, list):
        raise TypeError(f"token ids are not a list but {type(written).__name__}")
    for token in written:
        if type(token) is not int or not 0 <= token < MOST_IDS:
            raise ValueError(f"{quoted(token)} is not a token id")
    return written


def natural(written: Any) -> int:
    """A count or an index."""
    if type(written) is not int or not 0 <= written < MOST_IDS:
        raise ValueError(f"{quoted(written)} is not a count")
    return written


def optional(written: Any, kind: Any) -> Any:
    """A value of this kind; None if absent."""
    if written is not None and (isinstance(written, bool) or not isinstance(written, kind)):
        raise TypeError(f"expected {kind}, got {quoted(written)}")
    return written


def text(choice: dict[str, Any]) -> str:
    """The text of a choice, which the two endpoints write in different places; empty if absent."""
    if "text" in choice:
        return optional(choice["text"], str) or ""
    message = choice.get("delta") or choice.get("message") or {}
    return optional(message.get("content"), str) or ""


def _cached_tokens(usage: dict[str, Any]) -> int | None:
    """The optional count of cached tokens; a value that is not a count is ignored, not a fault of the answer."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if type(cached) is int and cached >= 0 else None
