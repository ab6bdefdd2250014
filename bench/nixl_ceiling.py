"""Compares what vLLM's KV transfers reached in a stored run with raw NIXL reads of the same descriptors and sizes.

    python -m bench.nixl_ceiling runs/latest

Two processes own a KV cache of the run's geometry each (``bench.nixl_agent``). One reads blocks from the other: as many
at a time as the run's transfers had on average, through UCX over what UCX chooses on this machine. Rows differ in how
many transfers are in flight, in whether the blocks of a transfer lie beside each other (NIXL merges their descriptors)
or scattered, and in how long NIXL's progress thread sleeps between polls: the harness lets it sleep for 500 us where
servers share few cores.

``bytes/s`` is wall time of all transfers together. ``by telemetry`` is bytes by the sum of NIXL's own durations, as in
vLLM's metrics: transfers in flight together count their time several times, so this alone compares with the run. The
run's figures are ``vllm:nixl_bytes_transferred_sum`` and ``vllm:nixl_xfer_time_seconds_sum`` of its decode servers; a
duration ends when vLLM looks, once a step, which is most of what a short transfer takes there. Every row checks the
bytes that arrived. A progress thread that never sleeps needs a core of its own, in both processes; with fewer free
cores its rows vary widely and may be below the run. Run it on the machine of the run: the ratio of two machines means
nothing.
"""

import argparse
import multiprocessing
import os
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bench.nixl_agent import Cache, Layout, Peer, serve
from harness.facts import Deployment, KVGeometry, Role
from harness.history import History, Scraped
from harness.observe.counters import TRANSFER_SECONDS
from harness.store import load_run

_BYTES, _TRANSFERS = "vllm:nixl_bytes_transferred_sum", "vllm:nixl_bytes_transferred_count"
_DESCRIPTORS = "vllm:nixl_num_descriptors_sum"
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Reached:
    """All transfers of a run."""

    transfers: float
    bytes: float
    descriptors: float
    """After NIXL merged those that lie beside each other."""
    seconds: float | None
    """None: a run of an earlier version, which did not keep it."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the raw reads are made."""

    in_flight: int
    scattered: bool
    progress_delay_us: int


@dataclass(frozen=True, slots=True)
class Read:
    """Raw reads, measured."""

    wall: float
    seconds: float
    """The sum of NIXL's durations."""
    bytes: int
    descriptors: int
    """After merging."""


def main() -> None:
    """Print the run's figures, and a row for each way."""
    options = _options()
    deployment, history = load_run(options.run_dir)
    reached, layout = reached_in(deployment, history), layout_of(deployment)
    size = max(1, round(reached.bytes / reached.transfers / (layout.layers * layout.region_bytes)))
    print("\n".join(_of_run(reached, layout, size)))
    print(f"  {'raw reads':44} {'GiB/s':>8} {'descriptors/s':>14} {'by telemetry':>13}   run by telemetry")
    delays = options.progress_delay_us
    ways = [Way(n, apart, delay) for delay in delays for n in options.in_flight for apart in (False, True)]
    found: dict[Way, list[Read]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, reads in found.items():
            reads.append(_measure(way, layout, size, options.transfers))
    for way, reads in found.items():
        print(_row(way, sorted(reads, key=lambda read: read.wall)[len(reads) // 2], reached))
    print(f"Load average of the machine at the end: {os.getloadavg()[0]:.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="a stored run whose decode server read through NIXL")
    parser.add_argument("--transfers", type=int, default=2000, help="of each row (2000)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, of which the one with the median time is shown (3)"
    )
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8], help="transfers at a time (1 8)")
    parser.add_argument("--progress-delay-us", type=int, nargs="+", default=[0, 500], help="of NIXL's thread (0 500)")
    return parser.parse_args()


def reached_in(deployment: Deployment, history: History) -> Reached:
    """The last readings of the decode servers, whose counters began at 0. Ends the program if nothing was read."""
    decode = {server.name for server in deployment.of(Role.DECODE)}
    last = {one.server: one for one in history.of(Scraped) if one.server in decode}
    transfers, size, descriptors, seconds = (
        _sum(last.values(), name) for name in (_TRANSFERS, _BYTES, _DESCRIPTORS, TRANSFER_SECONDS)
    )
    if not transfers or not size:
        raise SystemExit("The run's decode servers read nothing through NIXL, so there is nothing to compare with.")
    return Reached(transfers, size, descriptors or 0.0, seconds)


def _sum(readings: "Sequence[Scraped] | Any", name: str) -> float | None:
    values = [sample.value for one in readings for sample in one.samples if sample.name == name]
    return sum(values) if values else None


def layout_of(deployment: Deployment) -> Layout:
    """The cache of one decode server. Ends the program if the run does not know its geometry."""
    server = deployment.of(Role.DECODE)[0]
    geometry: KVGeometry | None = deployment.geometry
    if geometry is None or server.block_size is None or server.num_blocks is None:
        raise SystemExit("The run does not know the geometry of its KV cache, so its descriptors cannot be made again.")
    if server.ranks not in (None, 1):
        raise SystemExit(f"Each rank of {server.name} reads a part of the heads; only runs without ranks are compared.")
    return Layout(geometry.layers, server.num_blocks, geometry.block_bytes(server.block_size) // geometry.layers)


def _measure(way: Way, layout: Layout, size: int, transfers: int) -> Read:
    with _other(way, layout) as peer:
        cache = Cache("reader", layout, way.progress_delay_us)
        theirs = cache.described(_await(cache, peer), peer.regions)
        reader = _Reader(cache.agent, cache.own, theirs, layout)
        rng = random.Random(0)  # noqa: S311 - blocks are drawn, not secrets
        blocks = [chosen(rng, layout.blocks, size, scattered=way.scattered) for _ in range(transfers)]
        # The first transfers make the connections.
        reader.read(blocks[: way.in_flight * 2], way.in_flight)
        cache.clear()
        found = reader.read(blocks, way.in_flight)
        touched = sorted(set(chain.from_iterable(blocks)))
        if not cache.holds(touched, touched):
            raise SystemExit("What was read is not what the other process holds, so the figures mean nothing.")
        return found


@contextmanager
def _other(way: Way, layout: Layout) -> Iterator[Peer]:
    """The process that is read from."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=serve, args=("owner", layout, way.progress_delay_us, theirs))
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _await(cache: Cache, peer: Peer) -> str:
    name = cache.agent.add_remote_agent(peer.metadata)
    return name.decode() if isinstance(name, bytes) else str(name)


def chosen(rng: random.Random, blocks: int, size: int, *, scattered: bool) -> list[int]:
    """The blocks of a transfer: beside each other, or no two of them. Block 0 is vLLM's null block."""
    if scattered:
        return [1 + 2 * number for number in rng.sample(range((blocks - 1) // 2), size)]
    start = rng.randrange(1, blocks - size + 1)
    return list(range(start, start + size))


class _Reader:
    """Reads blocks of the other cache into the same blocks of its own."""

    def __init__(self, agent: Any, own: Any, theirs: Any, layout: Layout) -> None:
        self._agent, self._own, self._theirs, self._layout = agent, own, theirs, layout

    def read(self, transfers: Sequence[Sequence[int]], in_flight: int) -> Read:
        """Each transfer reads its blocks in all layers; so many are in flight at a time."""
        waiting, flying = deque(transfers), deque[Any]()
        seconds, size, descriptors, began = 0.0, 0, 0, time.perf_counter()
        while waiting or flying:
            while waiting and len(flying) < in_flight:
                flying.append(self._start(waiting.popleft()))
            handle = flying.popleft()
            if not self._is_done(handle):
                flying.append(handle)
                continue
            told = self._agent.get_xfer_telemetry(handle)
            seconds += told.xferDuration / 1e6
            size, descriptors = size + told.totalBytes, descriptors + told.descCount
            self._agent.release_xfer_handle(handle)
        return Read(time.perf_counter() - began, seconds, size, descriptors)

    def _start(self, blocks: Sequence[int]) -> Any:
        ids = [layer * self._layout.blocks + block for layer in range(self._layout.layers) for block in blocks]
        handle = self._agent.make_prepped_xfer("READ", self._own, ids, self._theirs, ids, notif_msg=b"done")
        self._agent.transfer(handle)
        return handle

    def _is_done(self, handle: Any) -> bool:
        state = self._agent.check_xfer_state(handle)
        if state not in ("DONE", "PROC"):
            raise SystemExit(f"A transfer ended as {state}.")
        return bool(state == "DONE")


def _of_run(reached: Reached, layout: Layout, size: int) -> Iterator[str]:
    each = f"{reached.bytes / reached.transfers / 1024:,.0f} KiB and {reached.descriptors / reached.transfers:.1f}"
    yield f"The run: {reached.transfers:,.0f} transfers of {each} descriptors on average, after merging."
    if reached.seconds:
        rate, each_second = reached.bytes / reached.seconds / _GIB, reached.descriptors / reached.seconds
        yield f"  {rate:.3f} GiB/s and {each_second:,.0f} descriptors/s by telemetry"
    else:
        yield "  The run did not keep how long they took, so that no ratio can be given."
    yield f"Raw: {size} blocks a transfer, {layout.layers} layers, {layout.region_bytes:,} bytes a descriptor."


def _row(way: Way, read: Read, reached: Reached) -> str:
    lie = "scattered" if way.scattered else "side by side"
    name = f"{way.in_flight} in flight, {lie}, progress every {way.progress_delay_us} us"
    rates = f"{read.bytes / read.wall / _GIB:8.2f} {read.descriptors / read.wall:14,.0f}"
    own = read.bytes / read.seconds
    share = f"{reached.bytes / reached.seconds / own:.1%} of it" if reached.seconds else "unknown"
    return f"  {name:44} {rates} {own / _GIB:7.2f} GiB/s   {share}"


if __name__ == "__main__":
    main()
