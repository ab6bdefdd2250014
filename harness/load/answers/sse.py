"""Parses server-sent events, incrementally and without I/O (WHATWG HTML, 9.2.6).

Rule 1: an event ends at an empty line. Text after the last empty line is not an event, even if it looks complete; a
        caller that knows that the stream was not cut may use it (``unended``).
Rule 2: a line ends in LF, CR LF or CR. A CR at the end of one read may be half of a CR LF: it ends its line at
        once, and an LF at the start of the next read belongs to it.
Rule 3: only ``data`` fields are returned. Several in one event are joined by LF; comments (``: keep-alive``), ``id``,
        ``event`` and ``retry`` are ignored.
Rule 4: a byte order mark at the very beginning is ignored.
Rule 5: text that is not an event, such as a gateway's error, is not returned, but kept as ``stray``.
"""

from dataclasses import dataclass, field

_FIELD = b"data:"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIELD_STARTS = (b"data", b":", b"event", b"id", b"retry")


@dataclass(slots=True)
class EventParser:
    """Turns bytes into the payloads of whole events, the same however the bytes are split."""

    _rest: bytearray = field(default_factory=bytearray)
    _after_cr: bool = False
    _started: bool = False
    _stray: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the events that ``data`` completes, in order."""
        data = self._with_lf(data)
        # The empty line is searched from the last byte of the earlier reads on, and the buffer grows in place:
        # otherwise an event of many reads would cost the square of its size.
        seen = max(len(self._rest) - 1, 0)
        self._rest += data
        if not self._started and not self._start():
            return []
        if self._rest.find(b"\n\n", seen) < 0:
            return []
        *events, rest = bytes(self._rest).split(b"\n\n")
        self._rest = bytearray(rest)
        return [payload for event in events if (payload := self._payload(event)) is not None]

    @property
    def between_events(self) -> bool:
        """Whether all that was fed are whole events, so that the next byte begins an event."""
        return not self._rest and not self._after_cr

    def begun(self) -> None:
        """Events that began the stream were read elsewhere: a byte order mark is no longer expected."""
        self._started = True

    @property
    def unended(self) -> bytes | None:
        """The payload after the last empty line; None without one."""
        return self._payload(bytes(self._rest)) if self._rest.strip(b"\n") else None

    @property
    def stray(self) -> bytes:
        """The first text in the stream that is not an event; empty without one."""
        return self._stray or (bytes(self._rest) if _is_stray(self._rest) else b"")

    def _start(self) -> bool:
        """Remove the byte order mark; False until enough bytes have arrived to recognise it."""
        if len(self._rest) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(self._rest):
            return False
        self._started = True
        if self._rest.startswith(_BYTE_ORDER_MARK):
            del self._rest[: len(_BYTE_ORDER_MARK)]
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
        # Nearly every event is one line, and the split would cost more than the rest of the parser.
        if b"\n" not in event:
            payload = _value(event)
        else:
            values = [value for line in event.split(b"\n") if (value := _value(line)) is not None]
            payload = b"\n".join(values) if values else None
        if payload is None and not self._stray and _is_stray(event):
            self._stray = event
        return payload


def _is_stray(text: bytes | bytearray) -> bool:
    return bool(text.strip()) and not text.lstrip().startswith(_FIELD_STARTS)


def _value(line: bytes) -> bytes | None:
    """The value of a ``data`` field; None for any other line."""
    if line.startswith(_FIELD):
        return line[5:].removeprefix(b" ")
    return b"" if line == b"data" else None
