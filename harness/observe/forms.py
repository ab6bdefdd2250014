"""What a server told, taken only in the form that it ought to have: anything else is as if it had told nothing."""

import json
import re
from collections.abc import Mapping
from typing import Any

_LARGEST = 2**63
_DIGITS = re.compile(r"[0-9]{1,19}(\.0*)?")


def mapping(value: object) -> Mapping[str, Any]:
    """An object, also one written as a string of JSON; else an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def whole(value: object) -> int | None:
    """A positive whole number, also one written as text or as a float; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        text = value.strip() if isinstance(value, str) else format(value, "d" if isinstance(value, int) else "f")
    except ValueError:  # more digits than Python turns into text
        return None
    if not _DIGITS.fullmatch(text):
        return None
    number = int(text.partition(".")[0])
    return number if 0 < number < _LARGEST else None


def name_of(value: object) -> str | None:
    """A text that is not empty; else None."""
    return value if isinstance(value, str) and value else None
