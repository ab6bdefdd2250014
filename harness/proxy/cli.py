"""Prefill/decode proxy for vLLM: prefills each request on a prefill server, then decodes it on a decode server.

Pass URLs that contain credentials in the environment, since every user of the machine can read a process's arguments.
PD_PROXY_PREFILL and PD_PROXY_DECODE hold URLs separated by spaces; each is used if no flag names a server of its role.
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
from harness.open_files import raise_file_limit
from harness.proxy.detours import read_detours
from harness.proxy.server import ProxyHandle, start_proxy
from harness.redact import redact_text

PREFILL_VARIABLE, DECODE_VARIABLE = "PD_PROXY_PREFILL", "PD_PROXY_DECODE"

_LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    raise_file_limit()  # each stream needs two connections
    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(_serve(args))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.VALID


async def _serve(args: argparse.Namespace) -> None:
    stop = _stop_signal()
    prefill = args.prefill + _urls("prefiller", args.prefiller_hosts, args.prefiller_ports)
    decode = args.decode + _urls("decoder", args.decoder_hosts, args.decoder_ports)
    prefill = prefill or os.environ.get(PREFILL_VARIABLE, "").split()
    decode = decode or os.environ.get(DECODE_VARIABLE, "").split()
    handle = await start_proxy(prefill, decode, host=args.host, port=args.port, detours=read_detours(args.detour))
    try:
        _announce(handle, args.host)
        await stop.wait()
    finally:
        await handle.stop()


def _announce(handle: ProxyHandle, host: str) -> None:
    prefill, decode = ([counts["url"] for counts in handle.status()[role]] for role in Role)
    if not _is_loopback(host):
        print(
            f"warning: listening on {host}: everybody who can reach this machine can use the servers through the proxy",
            file=sys.stderr,
        )
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
    """The loop of uvloop if it is installed (it does not exist for Windows), else of asyncio."""
    try:
        import uvloop  # noqa: PLC0415 - optional by platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _urls(name: str, hosts: list[str], ports: list[int]) -> list[str]:
    """URLs from the two lists of vLLM's toy proxy, where the hosts may be left out."""
    hosts = hosts or ["localhost"] * len(ports)
    if len(hosts) != len(ports):
        raise UsageError(
            f"--{name}-hosts has {len(hosts)} values and --{name}-ports has {len(ports)}: give as many of each."
        )
    return [f"http://{host}:{port}" for host, port in zip(hosts, ports, strict=True)]


class _Parser(argparse.ArgumentParser):
    """Hides credentials: argparse's errors repeat the arguments, and a URL may contain credentials."""

    def error(self, message: str) -> NoReturn:
        super().error(redact_text(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m harness.proxy", description=__doc__)
    for role in Role:
        parser.add_argument(
            f"--{role}", action="append", default=[], metavar="URL", help=f"URL of a {role} server; repeatable"
        )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on; 0 chooses a free port (default: %(default)s)"
    )
    parser.add_argument(
        "--detour",
        action="append",
        default=[],
        metavar="HOST:PORT=HOST:PORT",
        help="for tests: use the second address where the first one is meant, also in what prefill hands to decode; "
        "repeatable",
    )
    _add_toy_proxy_flags(parser, "prefiller")
    _add_toy_proxy_flags(parser, "decoder")
    return parser


def _add_toy_proxy_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """The flags of vLLM's toy proxy, so that this proxy can replace it."""
    hosts, ports = (f"--{name}-hosts", f"--{name}-host"), (f"--{name}-ports", f"--{name}-port")
    same = "as in vLLM's toy_proxy_server.py"
    parser.add_argument(*hosts, nargs="+", default=[], metavar="HOST", help=same)
    parser.add_argument(*ports, nargs="+", type=int, default=[], metavar="PORT", help=same)
