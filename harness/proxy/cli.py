"""The proxy by itself, as a process.

URLs with credentials in them are better given in the environment, which only their owner can read, than as arguments,
which every user of the machine sees: PD_PROXY_PREFILL and PD_PROXY_DECODE hold URLs separated by spaces, and count
where no flag names a server of that role.
"""

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from harness.errors import ExitCode, UsageError
from harness.facts import Role
from harness.proxy.server import ProxyHandle, start_proxy
from harness.redact import redact_text

PREFILL_VARIABLE, DECODE_VARIABLE = "PD_PROXY_PREFILL", "PD_PROXY_DECODE"

_LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(_serve(args))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.VALID


async def _serve(args: argparse.Namespace) -> None:
    stop = _stop_signal()
    prefill = args.prefill + _joined("prefiller", args.prefiller_hosts, args.prefiller_ports)
    decode = args.decode + _joined("decoder", args.decoder_hosts, args.decoder_ports)
    prefill = prefill or os.environ.get(PREFILL_VARIABLE, "").split()
    decode = decode or os.environ.get(DECODE_VARIABLE, "").split()
    handle = await start_proxy(prefill, decode, host=args.host, port=args.port)
    try:
        _announce(handle, args.host)
        await stop.wait()
    finally:
        await handle.stop()


def _announce(handle: ProxyHandle, host: str) -> None:
    prefill, decode = ([counts["url"] for counts in handle.status()[role]] for role in Role)
    if not _is_loopback(host):
        print(f"warning: listening on {host}: whoever reaches this machine can use P and D", file=sys.stderr)
    print(f"proxy ready on {handle.url} (prefill {', '.join(prefill)}; decode {', '.join(decode)})", flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def _fast_loop() -> _LoopFactory:
    """uvloop, where there is one (not on Windows)."""
    try:
        import uvloop  # noqa: PLC0415 - optional by platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _joined(name: str, hosts: list[str], ports: list[int]) -> list[str]:
    """URLs from vLLM's toy proxy's two lists; there a host may be left out."""
    hosts = hosts or ["localhost"] * len(ports)
    if len(hosts) != len(ports):
        raise UsageError(f"--{name}-hosts names {len(hosts)} and --{name}-ports {len(ports)}: give as many of each.")
    return [f"http://{host}:{port}" for host, port in zip(hosts, ports, strict=True)]


class _Parser(argparse.ArgumentParser):
    """Its errors repeat what was given, and a URL may have credentials in it."""

    def error(self, message: str) -> NoReturn:
        super().error(redact_text(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m harness.proxy", description=__doc__)
    parser.add_argument("--prefill", action="append", default=[], metavar="URL", help="a prefill server; repeatable")
    parser.add_argument("--decode", action="append", default=[], metavar="URL", help="a decode server; repeatable")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    _add_toy_proxy_flags(parser, "prefiller")
    _add_toy_proxy_flags(parser, "decoder")
    return parser


def _add_toy_proxy_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """The flags of vLLM's own test proxy, so that one can stand in for the other."""
    hosts, ports = (f"--{name}-hosts", f"--{name}-host"), (f"--{name}-ports", f"--{name}-port")
    parser.add_argument(*hosts, nargs="+", default=[], metavar="HOST", help="as vLLM's toy proxy has it")
    parser.add_argument(*ports, nargs="+", type=int, default=[], metavar="PORT", help="as vLLM's toy proxy has it")
