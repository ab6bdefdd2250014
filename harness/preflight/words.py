"""What a server or gateway said, made fit for a message: one line, printable, short, and without credentials."""

import json
import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 300
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_USERINFO = re.compile(r"(?P<kept>\w://)[^/@\s]+@")
_SHORTEST_SECRET = 4
"""A header's value of fewer characters is no credential, and would be found everywhere."""


def shown_url(url: str) -> str:
    """The URL without user, password and query."""
    return _USERINFO.sub(r"\g<kept>", url.partition("?")[0])


def words(raw: bytes | str, headers: Mapping[str, str] | None = None) -> str:
    """What an answer says: an error's message where it is JSON of that form, else the text itself; no full stop.

    ``headers``: what was sent with the request; their values are left out, since some servers repeat them.
    """
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    text = _USERINFO.sub(r"\g<kept>", _message(text) or text)
    for secret in _secrets(headers or {}):
        text = text.replace(secret, "<redacted>")
    line = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split())).rstrip(".")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _secrets(headers: Mapping[str, str]) -> list[str]:
    """Longest first, so that none leaves a part of another behind."""
    values = {part for value in headers.values() for part in (value, value.rpartition(" ")[2])}
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)


def _message(text: str) -> str:
    """Of an error object as OpenAI, vLLM and FastAPI write it; empty where it is none."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return _told(answer) if isinstance(answer, dict) else ""


def _told(answer: Mapping[str, Any]) -> str:
    error = answer.get("error", answer.get("detail", answer.get("message")))
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
