"""Server-sent events, incrementally and without I/O (WHATWG HTML, 9.2.6).

Rule 1: an event ends at an empty line. What follows the last empty line is no event, however complete it looks.
Rule 2: a line ends in LF, CR LF or CR. A CR at the end of one read may be half of a CR LF: it ends its line at
        once, and an LF that opens the next read belongs to it.
Rule 3: only ``data`` fields count here. Several in one event are joined by LF; comments (``: keep-alive``), ``id``,
        ``event`` and ``retry`` are passed over.
"""

_FIELD = b"data:"


class EventParser:
    """Bytes in, payloads of whole events out; the same ones however the bytes are split."""

    __slots__ = ("_after_cr", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the events that ``data`` completes, in order."""
        self._rest += self._with_lf(data)
        if b"\n\n" not in self._rest:
            return []
        *events, self._rest = self._rest.split(b"\n\n")
        return [payload for event in events if (payload := _payload(event)) is not None]

    @property
    def unfinished(self) -> bool:
        """Whether bytes are left over that no empty line has ended."""
        return bool(self._rest.strip(b"\n"))

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


def _payload(event: bytes) -> bytes | None:
    # Nearly every event is one line; the split costs more than all the rest of the parser.
    if b"\n" not in event:
        return _value(event)
    values = [value for line in event.split(b"\n") if (value := _value(line)) is not None]
    return b"\n".join(values) if values else None


def _value(line: bytes) -> bytes | None:
    """The value of a ``data`` field; None for any other line."""
    if line.startswith(_FIELD):
        return line[5:].removeprefix(b" ")
    return b"" if line == b"data" else None
