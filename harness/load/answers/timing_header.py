"""Reads the proxy's response header ``X-PD-Timing``: ``proxy=0.214, prefill=31.502``, in milliseconds. No I/O."""

import re

_FORM = re.compile(r"proxy=(\d{1,9}\.\d{3}), prefill=(\d{1,9}\.\d{3})", re.ASCII)

Shares = tuple[float, float] | tuple[None, None]
"""Seconds of the proxy itself and of the prefill server."""


def shares_of(header: str | None) -> Shares:
    """The shares; None for both if the header is missing or has another form: other proxies may use its name."""
    found = _FORM.fullmatch(header) if header else None
    return (float(found[1]) / 1000, float(found[2]) / 1000) if found else (None, None)
