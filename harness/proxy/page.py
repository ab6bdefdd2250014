"""An answer of the proxy's own. No I/O."""

from typing import NamedTuple

JSON = b"application/json; charset=utf-8"


class Page(NamedTuple):
    """Status, body and content type."""

    status: int
    body: bytes = b""
    content_type: bytes = b"text/plain; charset=utf-8"
