"""A server's words, made fit to stand in a cause: one line, of a few hundred printable characters. Pure."""

SHOWN = 300
"""Characters that are quoted at most."""


def quoted(words: object) -> str:
    """The beginning of ``words``; what a terminal would obey and what cannot be encoded becomes a question mark."""
    text = words[: 4 * SHOWN].decode("utf-8", "replace") if isinstance(words, bytes) else _written(words)
    return "".join(one if one.isprintable() else " " if one.isspace() else "?" for one in text[:SHOWN])


def _written(words: object) -> str:
    try:
        return str(words)
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists
        return f"something too large to be shown ({type(words).__name__})"
