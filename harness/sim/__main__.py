"""``python -m harness.sim`` serves a simulated deployment from its own process until SIGINT or SIGTERM.

All servers of the deployment run in this one process, and read each other's memory. With ``--only NAME`` it serves one
of them, which reads the memory of the others over their side channels.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import uvloop

from harness.clock import MonotonicClock
from harness.facts import Connector
from harness.sim.alone import start_alone
from harness.sim.bugs import BUGS
from harness.sim.config import PlantedBug, SimConfig
from harness.sim.deployment import start_sim
from harness.sim.noise import KINDS, Noise

_DEFAULT = SimConfig()
PLANT = "PD_HARNESS_SIM_PLANT"
"""Environment variable: the bugs of a simulated pair that another command starts (``--engine sim``)."""
SLOW = "PD_HARNESS_SIM_SLOW"
"""Environment variable: the slow prefills of such a pair, as in ``0.03:0.2`` (3 % of the prompts, 0.2 s late)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes, and return the exit code."""
    flags = _parser().parse_args(argv)
    uvloop.run(_serve_one(flags) if flags.only else _serve(flags))
    return 0


async def _serve(flags: argparse.Namespace) -> None:
    stop = _on_signal()
    deployment = await start_sim(config_of(flags), ports=flags.prefill_port + flags.decode_port)
    try:
        print(f"simulated: prefill {deployment.prefill_urls}, decode {deployment.decode_urls}", flush=True)
        await stop.wait()
    finally:
        await deployment.stop()


async def _serve_one(flags: argparse.Namespace) -> None:
    stop = _on_signal()
    (port,) = flags.prefill_port + flags.decode_port
    server = await start_alone(
        config_of(flags), flags.only, MonotonicClock(), port=port, side_channel=flags.side_channel_port
    )
    try:
        print(f"simulated: {flags.only} at {server.site.url}", flush=True)
        await stop.wait()
    finally:
        await server.stop()


def _on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def config_of(flags: argparse.Namespace) -> SimConfig:
    """Turn the command line's flags into a configuration."""
    share, late = _slow(flags.slow_prefills)
    return SimConfig(
        prefills=len(flags.prefill_port),
        decodes=len(flags.decode_port),
        block_size=flags.block_size,
        num_blocks=flags.num_blocks,
        connectors=tuple(Connector(name) for name in flags.connector),
        offload_chunks=flags.offload_chunks,
        noise=replace(Noise(), flip_rate=flags.flip_rate),
        sim_noise=flags.sim_noise,
        seed=flags.seed,
        bugs=tuple(map(_planted, flags.plant)),
        slow_share=share,
        slow_seconds=late,
        **flags.fields,
    )


def _planted(text: str) -> PlantedBug:
    name, _, rate = text.partition("=")
    return PlantedBug(name, float(rate or 1))


def _slow(text: str) -> tuple[float, float]:
    share, _, late = text.partition(":")
    return float(share or 0), float(late or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.sim", description=__doc__)
    parser.add_argument("--prefill-port", metavar="PORT", type=int, action="append", default=[], help="repeatable")
    parser.add_argument("--decode-port", metavar="PORT", type=int, action="append", default=[], help="repeatable")
    parser.add_argument(
        "--only", metavar="NAME", help="serve this one server, such as prefill-0, at the one port given"
    )
    parser.add_argument("--side-channel-port", metavar="PORT", type=int, default=0, help="of the server of --only")
    connector = parser.add_argument("--connector", choices=list(Connector), action="append", default=[])
    connector.help = "repeatable; MultiConnector asks them in this order"
    parser.add_argument("--block-size", type=int, default=_DEFAULT.block_size)
    parser.add_argument("--num-blocks", type=int, default=_DEFAULT.num_blocks)
    parser.add_argument("--offload-chunks", type=int, default=_DEFAULT.offload_chunks)
    flips = _DEFAULT.noise.flip_rate
    parser.add_argument("--flip-rate", type=float, default=flips, help="share of requests that may flip at a near tie")
    parser.add_argument("--sim-noise", choices=KINDS, default=_DEFAULT.sim_noise, help="the kind of noise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--slow-prefills",
        metavar="SHARE:SECONDS",
        default=os.environ.get(SLOW, ""),
        help=f"begin the prefill of this share of the prompts so many seconds late (default: {SLOW})",
    )
    parser.add_argument("--fields", metavar="JSON", type=json.loads, default={}, help="more fields of SimConfig")
    parser.add_argument(
        "--plant",
        metavar="BUG[=RATE]",
        action="append",
        default=os.environ.get(PLANT, "").split(),
        help=f"plant a bug that strikes this share of requests (default 1); repeatable, or words in {PLANT}; one of "
        f"{', '.join(BUGS)}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
