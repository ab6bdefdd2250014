"""A server for comparisons of load generators: answers each of them in its own form, at once or paced, and keeps time.

    python -m bench.peer_stub --tokens 128 --pieces 16 --first-ms 50 --interval-ms 10

One process, one core. The first piece of a stream is due so long after its request arrived, each further one an
interval later: absolute times, so that a late write delays no other. Both 0 (the default): as fast as the client reads.
Every write is stamped with CLOCK_MONOTONIC immediately before it, the arrival of a request when its last byte was read.

The first line of output is the URL. A line of input is a file's name: the stamps of all whole streams so far are saved
there (``numpy.savez``; see ``bench.stamps``) and forgotten, which a line of output confirms.
"""

import argparse
import gc
import os
import re
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

from bench.peer_answers import Form, form, numbered, plain, stream, unstreamed

_STREAMED = re.compile(rb'"stream": ?true')
_NEVER = float("inf")
_SPIN_S = 0.0015
"""epoll waits whole milliseconds, and wakes late: below this, the stub looks again and again."""
_AT_A_TIME = 32
"""Writes between two looks for requests: the arrival of a request is stamped at most so many writes late."""


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream, one event each (128)")
    parser.add_argument("--pieces", type=int, default=16, help="writes per stream (16)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens that usage reports (200)")
    parser.add_argument("--first-ms", type=float, default=0.0, help="from a request to its first piece (0)")
    parser.add_argument("--interval-ms", type=float, default=0.0, help="between two pieces of a stream (0)")
    options = parser.parse_args()
    # Stamps pile up, and a collection that looks at all of them would delay every stream that is open.
    gc.disable()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        _Server(listening, options).serve()


class _Stream:
    """One connection, and the stream that it has at the moment."""

    __slots__ = ("arrived", "due", "number", "received", "request_id", "rest", "socket", "stamps", "writes")

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.received = b""
        self.rest = b""
        self.stamps: list[float] = []
        self.writes: list[bytes] = []
        self.number, self.request_id, self.arrived, self.due = 0, "", 0.0, 0.0

    def write(self, now: float) -> bool:
        """Write the next piece, or the rest of one that did not fit. False: nobody reads any more."""
        rest = self.rest
        if not rest:
            rest = self.writes[len(self.stamps)]
            if not self.stamps:
                rest = numbered(rest, self.number)
            self.stamps.append(now)
        try:
            sent = self.socket.send(rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        self.rest = rest[sent:]
        return True


class _Server:
    def __init__(self, listening: socket.socket, options: argparse.Namespace) -> None:
        tokens, pieces, self._prompt = options.tokens, options.pieces, options.prompt
        self._listening = listening
        self._writes = {kind: stream(kind, tokens, pieces, self._prompt) for kind in Form}
        self._first, self._interval = options.first_ms / 1000, options.interval_ms / 1000
        self._poll = select.epoll()
        self._open: dict[int, _Stream] = {}
        # Two queues, each in the order of due times, because each adds the same delay to times that never fall.
        self._firsts: deque[_Stream] = deque()
        self._others: deque[_Stream] = deque()
        self._whole: list[tuple[int, str, float, list[float]]] = []
        self._asked = 0

    def serve(self) -> None:
        self._listening.settimeout(0)
        self._poll.register(self._listening, select.EPOLLIN)
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        while self._look():
            self._write_due()

    def _look(self) -> bool:
        """Read what has arrived, and wait for it if no write is due. False at the end of the input."""
        for number, _ in self._poll.poll(self._wait()):
            if number == self._listening.fileno():
                self._accept()
            elif number == sys.stdin.fileno():
                if not (name := os.read(number, 4096).decode().strip()):
                    return False
                self._save(Path(name))
            else:
                self._read(number)
        return True

    def _wait(self) -> float:
        """Seconds until the next write is due; -1: there is none."""
        due = min((queue[0].due for queue in (self._firsts, self._others) if queue), default=_NEVER)
        if due == _NEVER:
            return -1
        wait = due - time.monotonic()
        return wait - _SPIN_S if wait > _SPIN_S else 0

    def _write_due(self) -> None:
        """Write the pieces that are due, up to a number."""
        firsts, others = self._firsts, self._others
        for _ in range(_AT_A_TIME):
            queue = firsts if firsts and not (others and others[0].due < firsts[0].due) else others
            now = time.monotonic()
            if not queue or queue[0].due > now:
                return
            one = queue.popleft()
            if one.write(now):
                self._after(one)

    def _after(self, one: _Stream) -> None:
        if one.rest:
            # The client has not taken it all: again in turn, as a write that is due now.
            self._others.append(one)
        elif len(one.stamps) < len(one.writes):
            one.due += self._interval
            self._others.append(one)
        else:
            self._whole.append((one.number, one.request_id, one.arrived, one.stamps))

    def _accept(self) -> None:
        opened, _ = self._listening.accept()
        opened.settimeout(0)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[opened.fileno()] = _Stream(opened)
        self._poll.register(opened, select.EPOLLIN)

    def _read(self, number: int) -> None:
        one = self._open[number]
        try:
            data = one.socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            self._poll.unregister(number)
            del self._open[number]
            one.socket.close()
            return
        one.received += data
        head, found, body = one.received.partition(b"\r\n\r\n")
        if found and len(body) >= int(_header(head, b"content-length") or 0):
            one.received = b""
            self._answer(one, head, body)

    def _answer(self, one: _Stream, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method != b"POST":
            one.socket.send(plain(path))
            return
        if not _STREAMED.search(body) and b"json" in _header(head, b"content-type"):
            # What the whole command line asks before its load.
            one.socket.send(unstreamed(1, self._prompt))
            return
        self._asked += 1
        one.arrived = time.monotonic()
        one.number, one.request_id = self._asked, _header(head, b"x-request-id").decode()
        one.stamps, one.writes, one.due = [], self._writes[form(path, body)], one.arrived + self._first
        self._firsts.append(one)

    def _save(self, path: Path) -> None:
        numbers, ids, arrived, stamps = zip(*self._whole, strict=True) if self._whole else ((), (), (), ())
        with path.open("wb") as file:
            np.savez(file, numbers=numbers, ids=np.array(ids, str), arrived=arrived, stamps=np.array(stamps, float))
        self._whole.clear()
        print("saved", flush=True)


def _header(head: bytes, name: bytes) -> bytes:
    """A header's value; empty if it is not there."""
    start = head.lower().find(b"\r\n" + name + b":")
    return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip() if start >= 0 else b""


if __name__ == "__main__":
    main()
