"""A server for benchmarks of clients: streams prepared answers in vLLM's form, and does nothing else.

    python -m bench.stub --tokens 128 --pieces 16 --logprobs 2
    python -m bench.stub --chat

One process, one core. Every POST is answered by the same stream, in so many pieces: one write to the socket each, with
the pieces of all other open streams in between, as from a server that computes one step for all of them. The first line
of output is the URL. With ``--hold N`` the first N streams stop after their first piece until all N are open: the stub
says so in a second line, and goes on when it reads a line.
"""

import argparse
import select
import socket
import sys
from collections.abc import Iterator, Sequence

from bench.stub_answers import stream


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream, one event each (128)")
    parser.add_argument("--pieces", type=int, default=16, help="writes per stream (16)")
    parser.add_argument("--logprobs", type=int, default=0, help="log-probabilities per token; 0: none (0)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens, repeated in the first event (200)")
    parser.add_argument("--port", type=int, default=0, help="0: any free one (0)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--hold", type=int, default=0, help="streams that stop until all of them are open (0)")
    parser.add_argument("--chat", action="store_true", help="stream chats, and not completions")
    options = parser.parse_args()
    with socket.create_server((options.host, options.port), backlog=4096) as listening:
        print(f"http://{options.host}:{listening.getsockname()[1]}", flush=True)
        writes = stream(options.tokens, options.pieces, options.logprobs, options.prompt, chat=options.chat)
        server = _Server(listening, writes)
        server.serve(server.hold(options.hold) if options.hold else ())


class _Server:
    def __init__(self, listening: socket.socket, writes: list[bytes]) -> None:
        self._listening = listening
        self._writes = writes
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}

        self._listening.settimeout(0)
        self._poll.register(self._listening, select.EPOLLIN)

    def hold(self, count: int) -> "list[_Connection]":
        """So many streams, open at the same time, of which the first piece was written."""
        held: list[_Connection] = []
        while len(held) < count:
            held += [one for one in self._asked(-1) if one.write()]
        print(f"{count} streams are open", flush=True)
        sys.stdin.readline()
        return held

    def serve(self, begun: "Sequence[_Connection]" = ()) -> None:
        streaming = [*begun]
        while True:
            streaming += self._asked(0 if streaming else -1)
            # One piece of every stream, and then the next piece of every stream.
            streaming = [one for one in streaming if one.write()]

    def _asked(self, wait: int) -> "Iterator[_Connection]":
        """The connections on which a whole request has arrived."""
        for number, _ in self._poll.poll(wait):
            if number == self._listening.fileno():
                self._accept()
            elif (connection := self._connections[number]).read():
                yield connection
            elif connection.is_closed:
                del self._connections[number]

    def _accept(self) -> None:
        opened, _ = self._listening.accept()
        opened.settimeout(0)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[opened.fileno()] = _Connection(opened, self._writes)
        self._poll.register(opened, select.EPOLLIN)


class _Connection:
    def __init__(self, opened: socket.socket, writes: list[bytes]) -> None:
        self._socket = opened
        self._writes = writes
        self._received = b""
        self._next = 0
        self._rest = b""
        self.is_closed = False

    def read(self) -> bool:
        """Whether a whole request has arrived, by its Content-Length."""
        try:
            data = self._socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            self._socket.close()
            self.is_closed = True
            return False
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return False
        self._received, self._next, self._rest = b"", 0, b""
        return True

    def write(self) -> bool:
        """Write the next piece; False if it was the last, or nobody reads it."""
        piece = self._rest or self._writes[self._next]
        try:
            sent = self._socket.send(piece)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        # What the client has not taken yet is written in the next turn.
        self._rest = piece[sent:]
        self._next += not self._rest
        return self._next < len(self._writes)


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)


if __name__ == "__main__":
    main()
