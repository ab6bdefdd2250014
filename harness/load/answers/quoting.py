"""Quotes a server's text in a cause: one line of a few hundred printable characters. Pure."""

SHOWN = 300
"""The most characters quoted."""


def quoted(value: object) -> str:
    """The beginning of ``value`` as text; control characters and characters that cannot be encoded become "?"."""
    text = value[: 4 * SHOWN].decode("utf-8", "replace") if isinstance(value, bytes) else _text(value)
    return "".join(one if one.isprintable() else " " if one.isspace() else "?" for one in text[:SHOWN])


def _text(value: object) -> str:
    try:
        return str(value)
    # A number of thousands of digits, or deeply nested lists.
    except (ValueError, RecursionError):
        return f"a value too large to show ({type(value).__name__})"
