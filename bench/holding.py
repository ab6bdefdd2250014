"""Holds many streams of stubs open with one client, and prints what it used, as JSON. Run by ``bench.open_streams``.

The first line is printed when all streams are open; then the streams go on when a line comes on standard input. The
second line says how they ended.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from bench.pipes import there
from harness.clock import MonotonicClock
from harness.history import Ended, Outcome
from harness.load.client import Client
from harness.scenario import Request, Route, Sampling

_ROOT = Path(__file__).parent.parent
_WAVE, _BETWEEN_WAVES_S = 256, 0.05
"""Streams that are begun together, and the seconds until the next: a server's queue of new connections is short."""


def main() -> None:
    """Open the streams, hold them and end them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs="+", help="loopback addresses, one for each stub")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--prompt", type=int, required=True)
    uvloop.run(_hold(parser.parse_args()))


async def _hold(options: argparse.Namespace) -> None:
    async with _stubs(options) as (stubs, urls):
        routes = {Route.PROXY: urls}
        async with Client(routes, model="m", clock=MonotonicClock(), timeout=600) as client:
            before = _memory()
            sending = await _begin(client, options)
            await _all_open(stubs, sending)
            _tell(before=before, memory=_memory(), descriptors=_descriptors())
            await asyncio.to_thread(sys.stdin.readline)
            for stub in stubs:
                there(stub.stdin).write(b"go on\n")
            ends = await asyncio.gather(*sending)
    lost = [one for one in ends if one.outcome is not Outcome.OK or len(one.token_times) != options.tokens]
    _tell(whole=len(ends) - len(lost), cpu=time.process_time(), causes=Counter(one.cause for one in lost))


def _tell(**found: object) -> None:
    print(json.dumps(found), flush=True)


@asynccontextmanager
async def _stubs(options: argparse.Namespace) -> AsyncIterator[tuple[list[Process], list[str]]]:
    """The stubs, each of which expects its share of the streams, and their URLs."""
    stubs = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.stub", "--host", host, "--pieces", "16"),
            *("--tokens", str(options.tokens), "--prompt", str(options.prompt)),
            *("--hold", str(len(range(number, options.streams, len(options.hosts))))),
            stdin=PIPE,
            stdout=PIPE,
            cwd=_ROOT,
        )
        for number, host in enumerate(options.hosts)
    ]
    try:
        yield stubs, [(await there(stub.stdout).readline()).decode().strip() for stub in stubs]
    finally:
        for stub in stubs:
            stub.kill()
            await stub.wait()


async def _begin(client: Client, options: argparse.Namespace) -> "list[asyncio.Task[Ended]]":
    """Begin all streams, wave by wave. The servers take turns."""
    sampling, prompt = Sampling(options.tokens), tuple(range(options.prompt))
    sending = []
    for number in range(options.streams):
        sending.append(asyncio.create_task(client.send(Request(f"open-{number}", prompt, sampling))))
        if number % _WAVE == _WAVE - 1:
            await asyncio.sleep(_BETWEEN_WAVES_S)
    return sending


async def _all_open(stubs: Sequence[Process], sending: "Sequence[asyncio.Task[Ended]]") -> None:
    """Wait until the stubs say that all streams are open; exit if one ends before."""
    opened: asyncio.Task[None] = asyncio.create_task(_say_open(stubs))
    early: asyncio.Task[None] = asyncio.create_task(_one_ends(sending))
    await asyncio.wait([opened, early], return_when=asyncio.FIRST_COMPLETED)
    if not opened.done():
        causes = [task.result().cause for task in sending if task.done()]
        raise SystemExit(f"{len(causes)} streams ended before all were open, the first because: {causes[0]}")
    early.cancel()


async def _say_open(stubs: Sequence[Process]) -> None:
    await asyncio.gather(*(there(stub.stdout).readline() for stub in stubs))


async def _one_ends(sending: "Sequence[asyncio.Task[Ended]]") -> None:
    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _memory() -> int:
    """Bytes of this process in physical memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
