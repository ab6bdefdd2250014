"""Decodes the content coding of an answer that a gateway compressed (RFC 9110, 8.4.1).

Every request has ``Accept-Encoding: identity``, but some gateways compress all the same.

Rule 1: gzip and deflate are decoded read by read, so that no byte is seen later than it arrived.
Rule 2: a body that is labelled gzip and is not gzip is used as it is.
Rule 3: an answer in any other coding cannot be read, and counts as unknown, not as faulty.
Rule 4: a few bytes may decode to a thousand times as many; they are decoded in parts of at most ``MOST_AT_ONCE``.
"""

import zlib
from collections.abc import Iterator

MOST_AT_ONCE = 1 << 20
"""Bytes."""
_GZIP = ("gzip", "x-gzip")
_GZIP_MARK = b"\x1f\x8b"
_ZLIB_METHOD = 0x78
"""The first byte of a deflate body in zlib's format, with the usual window size."""


class UnknownCoding(Exception):  # noqa: N818 - reads as what happened
    """The answer's content coding cannot be decoded."""


class Decoder:
    """Decodes one answer. Raises UnknownCoding for codings other than gzip, deflate and none, and for invalid bytes."""

    __slots__ = ("_coding", "_inflate")

    def __init__(self, coding: str) -> None:
        self._coding = coding.strip().lower()
        if self._coding not in ("", "identity", "deflate", *_GZIP):
            raise UnknownCoding(f"the answer has the content coding {self._coding}, which the request did not ask for")
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, in parts; there may be none until more data arrives."""
        if self._coding not in ("", "identity") and data:
            self._inflate = self._inflate or self._start(data)
            if self._inflate is None:
                self._coding = ""
        if self._inflate is None:
            yield data
            return
        part = b""
        # A full part: zlib may hold more of it, although it has taken all the data.
        while data or len(part) == MOST_AT_ONCE:
            try:
                part = self._inflate.decompress(data, MOST_AT_ONCE)
            except zlib.error as error:
                raise UnknownCoding(f"the answer is not valid in its content coding {self._coding}: {error}") from error
            data = self._inflate.unconsumed_tail
            yield part

    def _start(self, data: bytes) -> "zlib._Decompress | None":
        """The decompressor for a body with these first bytes; None if the body is not compressed."""
        # The standard's deflate is zlib's format; some servers send raw deflate.
        if self._coding == "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS if data[0] == _ZLIB_METHOD else -zlib.MAX_WBITS)
        return zlib.decompressobj(16 + zlib.MAX_WBITS) if _GZIP_MARK.startswith(data[:2]) else None
