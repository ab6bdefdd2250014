"""Content codings of an answer: what a gateway may have made of its bytes on the way (RFC 9110, 8.4.1).

Every request says that none is wanted (``Accept-Encoding: identity``), and some gateways compress all the same. Rule 1:
gzip and deflate are undone, read by read, so that what the gateway passes on at once is seen at once. Rule 2: a body
that is called gzip and is not is taken as it is. Rule 3: of any other coding nothing can be read
here: that says nothing about the answer, and is never called a fault of it.
"""

import zlib

_GZIP = ("gzip", "x-gzip")
_GZIP_MARK = b"\x1f\x8b"
_ZLIB_METHOD = 0x78
"""The first byte of zlib's form of deflate, at the window that everybody uses."""


class UnknownCoding(Exception):  # noqa: N818 - reads as what happened
    """The answer is coded in a way that cannot be undone here."""


class Decoder:
    """The bytes of one answer, as its server wrote them.

    Raises UnknownCoding for a coding other than gzip, deflate and none; ``feed`` for bytes that are not of it.
    """

    __slots__ = ("_coding", "_inflate")

    def __init__(self, coding: str) -> None:
        self._coding = coding.strip().lower()
        if self._coding not in ("", "identity", "deflate", *_GZIP):
            raise UnknownCoding(f"the answer is in the content coding {self._coding}, although none was asked for")
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """What these bytes stand for; may be nothing yet."""
        if not data or self._coding in ("", "identity"):
            return data
        self._inflate = self._inflate or self._begun(data)
        if self._inflate is None:
            self._coding = ""
            return data
        try:
            return self._inflate.decompress(data)
        except zlib.error as error:
            raise UnknownCoding(f"the answer is said to be in the content coding {self._coding}: {error}") from error

    def _begun(self, data: bytes) -> "zlib._Decompress | None":
        """For a body of these first bytes; None where it is not coded at all."""
        if self._coding == "deflate":  # zlib's form by the standard; some send the bare one
            return zlib.decompressobj(zlib.MAX_WBITS if data[0] == _ZLIB_METHOD else -zlib.MAX_WBITS)
        return zlib.decompressobj(16 + zlib.MAX_WBITS) if _GZIP_MARK.startswith(data[:2]) else None
