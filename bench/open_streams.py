"""Shows how many streams clients can hold open at once, whether any is lost, and what each costs in memory.

    python -m bench.open_streams --streams 50000

Stubs (``bench.stub``, each a process with a loopback address of its own, so that there are ports enough) stop every
stream after its first piece, a 16th of its tokens. When all streams are open, the clients' memory and descriptors are
counted and the stubs go on. A stream is lost unless all of its tokens arrive and its outcome is OK. One process is the
client of all, unless the limit of open files (``ulimit -Hn``) is lower: then there are as many clients as are needed.
Linux only.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from bench.pipes import there

_ROOT = Path(__file__).parent.parent
_OTHER_FILES = 100
"""Descriptors that a client needs beside its streams: libraries, pipes, the event loop."""
_STUBS = 2
"""Stubs for each client."""


def main() -> None:
    """Print the figures; the exit code is 1 if a stream was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50_000, help="streams that are open at once (50000)")
    parser.add_argument("--clients", type=int, help="processes that hold them (as few as the limit of files allows)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens (200)")
    options = parser.parse_args()
    most = _allowed_files() - _OTHER_FILES
    clients = options.clients or -(-options.streams // most)
    if options.streams > clients * most:
        raise SystemExit(
            f"A process may open {most + _OTHER_FILES} files, and each of {options.streams / clients:,.0f} streams is "
            f"one. Raise the limit before (`ulimit -Hn` as root, `--ulimit nofile=` of a container), or use at least "
            f"--clients {-(-options.streams // most)}."
        )
    sys.exit(_measure(options, clients))


def _allowed_files() -> int:
    """Raise this process's limit of open files, which others inherit, as far as it may be raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def _measure(options: argparse.Namespace, clients: int) -> int:
    began = time.perf_counter()
    with ExitStack() as stack:
        running = [stack.enter_context(_client(options, number, clients)) for number in range(clients)]
        opened = [_told(one.stdout) for one in running]
        print(f"{options.streams} streams open at once after {time.perf_counter() - began:.1f} s")
        for number, found in enumerate(opened):
            _show(number, _share(options, number, clients), found)
        for one in running:
            there(one.stdin).write("go on\n")
            there(one.stdin).flush()
        return _judged([_told(one.stdout) for one in running], options.streams)


def _show(number: int, streams: int, found: dict[str, Any]) -> None:
    before, memory = found["before"], found["memory"]
    print(
        f"  client {number}: {streams} streams, {found['descriptors']} descriptors, {memory / 1e6:,.0f} MB of memory "
        f"({before / 1e6:,.0f} MB before the first stream, {(memory - before) / streams / 1e3:.1f} kB a stream)"
    )


def _share(options: argparse.Namespace, number: int, clients: int) -> int:
    return len(range(number, options.streams, clients))


@contextmanager
def _client(options: argparse.Namespace, number: int, clients: int) -> Iterator[subprocess.Popen[str]]:
    hosts = [f"127.0.{number}.{stub + 1}" for stub in range(_STUBS)]
    command = [sys.executable, "-m", "bench.holding", *hosts, "--streams", str(_share(options, number, clients))]
    command += ["--tokens", str(options.tokens), "--prompt", str(options.prompt)]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        # At the end of its input, a client ends its stubs and itself.
        yield process


def _told(output: IO[str] | None) -> dict[str, Any]:
    line = there(output).readline()
    if not line:
        raise SystemExit("A client ended early; its message stands above.")
    found: dict[str, Any] = json.loads(line)
    return found


def _judged(ended: Sequence[dict[str, Any]], streams: int) -> int:
    """Print whether all streams are whole; the exit code."""
    whole, cpu = sum(one["whole"] for one in ended), sum(one["cpu"] for one in ended)
    print(f"{whole} of {streams} streams whole; {cpu:.1f} s of the clients' CPU time, their start included")
    causes = sum((Counter(one["causes"]) for one in ended), Counter[str]())
    for cause, count in causes.most_common(5):
        print(f"  {count}: {cause}")
    return 0 if whole == streams else 1


if __name__ == "__main__":
    main()
