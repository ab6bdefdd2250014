"""Data for scripts, inside an HTML page."""

import json
from typing import Any

from markupsafe import Markup

from harness.reports.strict_json import strict

_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def script_data(value: Any) -> Markup:
    """The value as JSON that can stand in a ``script`` element: it contains neither ``</script>`` nor ``<!--``.

    Numbers that JSON does not have become null.
    """
    text = json.dumps(strict(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character, escape in _ESCAPED.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - escaped just above
