"""Quotes a server's or gateway's text in a message: one short, printable line without credentials."""

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.redact import redact_secrets, redact_text, secrets_of

_LONGEST = 300
"""Characters."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def quoted(raw: bytes | str, headers: Mapping[str, str] | None = None) -> str:
    """The message of an error object in JSON, else the text itself; without a full stop at the end.

    ``headers``: those sent with the request; some servers repeat the credentials in them.
    """
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    text = redact_secrets(redact_text(_error_message(text) or text), secrets_of(headers or {}))
    line = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split())).rstrip(".")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _error_message(text: str) -> str:
    """The message of an error object as OpenAI, vLLM and FastAPI write it; empty if the text is not one."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answer, dict):
        return ""
    error: Any = answer.get("error", answer.get("detail", answer.get("message")))
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""
