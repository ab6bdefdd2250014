"""Reads values that a server reports; a value of an unexpected form counts as not reported."""

import json
import re
from collections.abc import Mapping
from typing import Any

_LARGEST = 2**63
_DIGITS = re.compile(r"[0-9]{1,19}(\.0*)?")


def mapping(value: object) -> Mapping[str, Any]:
    """Return an object, also if it is given as a JSON string; otherwise an empty object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def whole(value: object) -> int | None:
    """Return a positive whole number, also if it is given as text or as a float; otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        text = value.strip() if isinstance(value, str) else format(value, "d" if isinstance(value, int) else "f")
    # Python refuses to format a number of too many digits.
    except ValueError:
        return None
    if not _DIGITS.fullmatch(text):
        return None
    number = int(text.partition(".")[0])
    return number if 0 < number < _LARGEST else None


def name_of(value: object) -> str | None:
    """Return a text that is not empty; otherwise None."""
    return value if isinstance(value, str) and value else None
