"""Takes an HTTP answer as it arrives, whichever transport brings it, and reads it into an ``Answer``. No I/O.

The transport calls ``head`` once, and for each read of the connection what ``head`` returned. Then the client calls
``end``, or ``cut`` if the answer did not end as HTTP says that it should. All but these two may raise UnknownCoding
and TooLarge.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from harness.load.answers import size
from harness.load.answers.answer import Answer
from harness.load.answers.events import EventStream, TooLarge
from harness.load.answers.outcome import Reply
from harness.load.transport.coding import Decoder
from harness.load.transport.connection import Feed
from harness.scenario import Purpose, Request

# The proxy's response headers, as in harness.proxy.headers, which this room may not import.
_PREFILL = "x-pd-prefill"
_DECODE = "x-pd-decode"
_PREFILL_FIRST = "x-pd-prefill-first"
_TIMING = "x-pd-timing"


class _Content(Protocol):
    """The content of an answer with status 200 or another one."""

    def feed(self, pieces: Sequence[bytes], at: float) -> None: ...

    def cut(self) -> None: ...

    def end(self, at: float) -> None: ...


class Receiver:
    """One answer on its way. ``typed`` False: ``json`` reads it, and events one by one (for comparisons)."""

    __slots__ = ("_answer", "_content", "_reply", "_request", "_typed")

    def __init__(self, request: Request, reply: Reply, answer: Answer, *, typed: bool = True) -> None:
        self._request = request
        self._reply = reply
        self._answer = answer
        self._typed = typed
        self._content: _Content | None = None

    def head(self, status: int, headers: Mapping[str, str]) -> Feed:
        """Read the status and the headers, whose names are in lower case; of equal ones, the first.

        Returns what takes the body: the pieces of it that one read of the connection brought, and when, in seconds.
        """
        reply = self._reply
        reply.status = status
        reply.prefill_server = headers.get(_PREFILL)
        reply.decode_server = headers.get(_DECODE)
        reply.prefill_first = headers.get(_PREFILL_FIRST)
        reply.timing = headers.get(_TIMING)
        self._content = self._content_of(status, headers.get("content-type", ""))
        feed = self._content.feed
        if "content-encoding" not in headers:
            return feed
        decoder = Decoder(headers["content-encoding"])

        def feed_decoded(pieces: Sequence[bytes], at: float) -> None:
            for part in decoder.feed(b"".join(pieces)):
                feed([part], at)

        return feed_decoded

    def end(self, at: float) -> None:
        """The body has ended; ``at``: now, in seconds."""
        if self._content is not None:
            self._content.end(at)

    def cut(self) -> None:
        """No more of the answer will come."""
        if self._content is not None:
            self._content.cut()

    def _content_of(self, status: int, content_type: str) -> _Content:
        if status != 200 or self._request.purpose is Purpose.RESET:
            return _Whole(self._read_text, size.LARGEST_REFUSAL, reads_beginning=True)
        most = size.most_bytes(self._request)
        whole = _Whole(partial(self._answer.body, typed=self._typed), most)
        if not self._request.stream:
            return whole
        stream = EventStream(self._answer, self._typed, most)
        is_json = content_type.partition(";")[0].strip().lower().endswith("json")
        return _JsonOrStream(whole, stream) if is_json else stream

    def _read_text(self, body: bytes, _at: float) -> None:
        self._reply.body = body.decode("utf-8", "replace")


class _Whole:
    """A body that is read when all of it has arrived, and not at all if it was cut.

    A body of more than ``most`` bytes is given up; ``reads_beginning``: what has arrived of it is read then.
    """

    def __init__(self, read: Callable[[bytes, float], None], most: int, *, reads_beginning: bool = False) -> None:
        self._read = read
        self._most = most
        self._reads_beginning = reads_beginning
        self._body = bytearray()

    def feed(self, pieces: Sequence[bytes], at: float) -> None:
        self._body += b"".join(pieces)
        if len(self._body) > self._most:
            if self._reads_beginning:
                self._read(bytes(self._body), at)
            self._body.clear()
            raise TooLarge(self._most)

    def cut(self) -> None:
        pass

    def end(self, at: float) -> None:
        self._read(bytes(self._body), at)


class _JsonOrStream:
    """A whole answer or an error that came instead of a stream, or a stream with the wrong content type.

    The first byte that is not white space tells.
    """

    def __init__(self, whole: _Whole, stream: EventStream) -> None:
        self._whole = whole
        self._stream = stream
        self._content: _Content | None = None
        self._blank: list[tuple[bytes, float]] = []
        self._blank_bytes = 0

    def feed(self, pieces: Sequence[bytes], at: float) -> None:
        if self._content is not None:
            self._content.feed(pieces, at)
            return
        data = b"".join(pieces)
        if start := data.lstrip():
            self._begin(self._whole if start.startswith((b"{", b"[")) else self._stream)
            self.feed(pieces, at)
        elif data:
            self._blank.append((data, at))
            self._blank_bytes += len(data)
            if self._blank_bytes > size.LARGEST_REFUSAL:
                raise TooLarge(size.LARGEST_REFUSAL)

    def cut(self) -> None:
        self._begin(self._content or self._stream).cut()

    def end(self, at: float) -> None:
        # Nothing at all is an answer that is not JSON; white space alone is a stream without events.
        self._begin(self._content or (self._stream if self._blank else self._whole)).end(at)

    def _begin(self, content: _Content) -> _Content:
        self._content = content
        for data, at in self._blank:
            content.feed([data], at)
        self._blank.clear()
        return content
