"""Server-sent events, incrementally and without I/O (WHATWG HTML, 9.2.6).

Rule 1: an event ends at an empty line. What follows the last empty line is no event, however complete it looks; whoever
        knows that the stream ended there, and was not cut, may look at it (``unended``).
Rule 2: a line ends in LF, CR LF or CR. A CR at the end of one read may be half of a CR LF: it ends its line at
        once, and an LF that opens the next read belongs to it.
Rule 3: only ``data`` fields count here. Several in one event are joined by LF; comments (``: keep-alive``), ``id``,
        ``event`` and ``retry`` are passed over.
Rule 4: a byte order mark at the very beginning is passed over.
Rule 5: text that stands in the stream without being an event, as some gateways write an error, is no payload. It is
        kept as ``bare``, so that its words are not lost.
"""

_FIELD = b"data:"
_MARK = b"\xef\xbb\xbf"
_OF_EVENTS = (b"data", b":", b"event", b"id", b"retry")


class EventParser:
    """Bytes in, payloads of whole events out; the same ones however the bytes are split."""

    __slots__ = ("_after_cr", "_bare", "_begun", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._begun = False
        self._bare = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the events that ``data`` completes, in order."""
        data = self._with_lf(data)
        # An empty line may lie across the border. Only there and in what is new is it looked for, and what waits is
        # grown in place: an event of many reads would else cost the square of its size.
        seen = max(len(self._rest) - 1, 0)
        self._rest += data
        if not self._begun and not self._begin():
            return []
        if self._rest.find(b"\n\n", seen) < 0:
            return []
        *events, rest = bytes(self._rest).split(b"\n\n")
        self._rest = bytearray(rest)
        return [payload for event in events if (payload := self._payload(event)) is not None]

    @property
    def unfinished(self) -> bool:
        """Whether bytes are left over that no empty line has ended."""
        return bool(self._rest.strip(b"\n"))

    @property
    def unended(self) -> bytes | None:
        """The payload of what no empty line has ended; None where there is none."""
        return self._payload(bytes(self._rest)) if self.unfinished else None

    @property
    def bare(self) -> bytes:
        """The first text that stands in the stream and is no event; empty where there is none."""
        return self._bare or (bytes(self._rest) if _is_bare(self._rest) else b"")

    def _begin(self) -> bool:
        """Pass over the mark; False while too little has come to tell whether there is one."""
        if len(self._rest) < len(_MARK) and _MARK.startswith(self._rest):
            return False
        self._begun = True
        if self._rest.startswith(_MARK):
            del self._rest[: len(_MARK)]
        return True

    def _with_lf(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" not in data:
            return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _payload(self, event: bytes) -> bytes | None:
        # Nearly every event is one line; the split costs more than all the rest of the parser.
        if b"\n" not in event:
            payload = _value(event)
        else:
            values = [value for line in event.split(b"\n") if (value := _value(line)) is not None]
            payload = b"\n".join(values) if values else None
        if payload is None and not self._bare and _is_bare(event):
            self._bare = event
        return payload


def _is_bare(text: bytes | bytearray) -> bool:
    return bool(text.strip()) and not text.lstrip().startswith(_OF_EVENTS)


def _value(line: bytes) -> bytes | None:
    """The value of a ``data`` field; None for any other line."""
    if line.startswith(_FIELD):
        return line[5:].removeprefix(b" ")
    return b"" if line == b"data" else None
