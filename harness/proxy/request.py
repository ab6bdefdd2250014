"""A client's request, whose body may still be arriving. No I/O."""

import asyncio
import zlib
from collections.abc import Sequence
from urllib.parse import unquote

from harness.proxy.contract import RejectedRequest
from harness.proxy.errors import one_line
from harness.proxy.headers import Header, by_name

_UNZIP = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""zlib's window sizes, which also select the container."""
MAX_DECODED_BYTES = 1 << 30


class Request:
    """One request. Its headers have arrived; ``body`` waits for the rest."""

    __slots__ = (
        *("_error", "_parts", "_size", "_waiter", "headers", "keep_alive", "method", "named", "refusal", "target"),
        *("version", "whole"),
    )

    def __init__(
        self, method: str, target: bytes, version: str, headers: Sequence[Header], keep_alive: bool = False
    ) -> None:
        self.method = method
        self.target = target
        """As in the request line."""
        self.version = version
        """``1.0`` or ``1.1``."""
        self.headers = headers
        self.named = by_name(headers)
        """Values by name in lower case."""
        self.keep_alive = keep_alive
        """Whether the client allows a further request on its connection."""
        self.whole = False
        """Whether the body has arrived."""
        self.refusal: tuple[int, str] | None = None
        """Status and message of the answer, if what arrived is no request."""
        self._parts: list[bytes] = []
        self._size = 0
        self._error: tuple[int, str] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    def refused(cls, status: int, message: str) -> "Request":
        """Stands for bytes that are no request."""
        request = cls("", b"", "1.1", ())
        request.refusal = status, message
        return request

    @property
    def path(self) -> str:
        """The path, decoded; of the absolute form of a target as well."""
        return unquote(self.path_qs.partition(b"?")[0].decode("latin-1"))

    @property
    def path_qs(self) -> bytes:
        """Path and query as the client wrote them, without a fragment."""
        target = self.target.partition(b"#")[0]
        if target.startswith(b"/") or b"://" not in target:
            return target
        _, slash, path = target.partition(b"://")[2].partition(b"/")
        return slash + path if slash else b"/"

    @property
    def expects_continue(self) -> bool:
        """Whether the client sends the body only after ``100 Continue``. Any other ``Expect`` is ignored."""
        return (
            not self.whole
            and not self._size
            and self.version == "1.1"
            and self.named.get(b"expect", b"").lower() == b"100-continue"
        )

    def add(self, part: bytes) -> int:
        """Take a part of the body; the size of all parts so far, in bytes."""
        self._parts.append(part)
        self._size += len(part)
        return self._size

    def complete(self) -> None:
        """The body has arrived."""
        self.whole = True
        self._wake()

    def fail(self, status: int, message: str) -> None:
        """The rest of the body cannot be read."""
        self._error = status, message
        self._parts.clear()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def body(self) -> bytes:
        """The decoded body. Raises RejectedRequest if it is too long or contradicts its headers."""
        if not self.whole and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            status, message = self._error
            raise RejectedRequest(f"The request body cannot be read as its headers say: {message}", status=status)
        raw = b"".join(self._parts) if len(self._parts) != 1 else self._parts[0]
        coding = self.named.get(b"content-encoding")
        return raw if coding is None or not raw else _unzipped(raw, coding.strip().lower())


def _unzipped(raw: bytes, coding: bytes) -> bytes:
    if coding == b"identity":
        return raw
    if coding not in _UNZIP:
        raise RejectedRequest(f"Content-Encoding {one_line(coding.decode(errors='replace'))} is unknown.", status=415)
    unzip = zlib.decompressobj(_UNZIP[coding])
    try:
        decoded = unzip.decompress(raw, MAX_DECODED_BYTES)
    except zlib.error as error:
        raise RejectedRequest(f"The request body cannot be read as its headers say: {error}.") from error
    if unzip.unconsumed_tail:
        raise RejectedRequest(f"The decoded body is longer than {MAX_DECODED_BYTES} bytes.", status=413)
    if not unzip.eof:
        raise RejectedRequest("The request body cannot be read as its headers say: its compressed data end early.")
    return decoded
