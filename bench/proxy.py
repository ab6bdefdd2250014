"""Measures what the proxy costs, beside vLLM's toy proxy and beside no proxy, in front of servers that answer at once.

The proxies run one after another on one core; servers and client run on another. Each round measures all of them, and
the table shows medians over the rounds. Streams per CPU second (of the proxy's process, from /proc) do not depend on
what else the machine does; streams per second do, and ``busy`` tells whether the proxy was what limited them. The row
``no proxy`` shows how much faster than all proxies servers and client are. Linux only.

    python -m bench.proxy --toy-proxy toy_proxy_server.py

The toy proxy is tests/v1/kv_connector/nixl_integration/toy_proxy_server.py of vLLM's repository; it needs vLLM's own
requirements (fastapi, httpx, uvicorn).
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.proxy_stub import load, serving

_OURS = "this proxy"
_DEADLINE_S = 30.0
_Start = tuple[list[str], str | None]
"""Python's arguments that start a proxy, and the folder to start it in."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of one target."""

    rate: float
    """Streams per second."""
    per_cpu_second: float
    """Streams per second of the proxy's processor time; 0 without a proxy."""
    busy: float
    """The proxy's processor time as a share of the time measured."""
    ttft: float
    """Median seconds to the first byte, one request at a time."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent."""

    body: bytes
    requests: int
    concurrency: int


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


def _await_port(port: int) -> None:
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"No proxy listens on port {port} after {_DEADLINE_S:.0f} s.")


@contextmanager
def _running(start: _Start, core: int, ports: tuple[int, int]) -> Iterator[tuple[str, int]]:
    """A proxy's URL and process id. All proxies here take the toy proxy's flags."""
    arguments, folder = start
    port = _free_port()
    servers = ["--prefiller-port", str(ports[0]), "--decoder-port", str(ports[1])]
    hosts = ["--prefiller-host", "127.0.0.1", "--decoder-host", "127.0.0.1"]
    command = ["taskset", "-c", str(core), sys.executable, *arguments, "--port", str(port), *hosts, *servers]
    environment = {**os.environ, "PYTHONPATH": folder or str(Path.cwd())}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, cwd=folder, stdout=quiet, stderr=quiet) as process:
        try:
            _await_port(port)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def _measure(url: str, pid: int | None, sent: Load) -> Row:
    load(url, sent.body, sent.requests // 10, sent.concurrency)
    before = _cpu_seconds(pid) if pid else 0.0
    many = load(url, sent.body, sent.requests, sent.concurrency)
    cpu = _cpu_seconds(pid) - before if pid else 0.0
    one = load(url, sent.body, max(sent.requests // 5, 100), 1)
    return Row(many.rate, sent.requests / cpu if cpu else 0.0, cpu / many.seconds, one.ttft)


def _round(proxies: Mapping[str, _Start], core: int, ports: tuple[int, int], sent: Load) -> dict[str, Row]:
    rows = {"no proxy": _measure(f"http://127.0.0.1:{ports[1]}", None, sent)}
    for name, start in proxies.items():
        with _running(start, core, ports) as (url, pid):
            rows[name] = _measure(url, pid, sent)
    return rows


def _median(rows: list[Row]) -> Row:
    columns = zip(*((row.rate, row.per_cpu_second, row.busy, row.ttft) for row in rows), strict=True)
    return Row(*map(statistics.median, columns))


def _show(measured: Mapping[str, list[Row]]) -> None:
    medians = {name: _median(rows) for name, rows in measured.items()}
    direct, ours = medians["no proxy"], medians[_OURS]
    print(f"{'':14} {'streams/s':>10} {'per CPU s':>10} {'busy':>5} {'TTFT alone':>11} {'added':>9} {'ours / it':>10}")
    print(f"{'no proxy':14} {direct.rate:10.0f} {'':10} {'':5} {direct.ttft * 1e3:8.3f} ms")
    for name, row in list(medians.items())[1:]:
        cost = f"{row.rate:10.0f} {row.per_cpu_second:10.0f} {row.busy:5.0%}"
        added = f"{row.ttft * 1e3:8.3f} ms {(row.ttft - direct.ttft) * 1e3:6.3f} ms"
        print(f"{name:14} {cost} {added} {ours.per_cpu_second / row.per_cpu_second:9.2f}x")


def _proxies(args: argparse.Namespace) -> dict[str, _Start]:
    ours = ["-m", "harness.proxy"]
    proxies: dict[str, _Start] = {_OURS: (ours, None)}
    if args.earlier:
        proxies["earlier proxy"] = (ours, str(Path(args.earlier).resolve()))
    if args.toy_proxy:
        proxies["toy proxy"] = ([str(Path(args.toy_proxy).resolve())], None)
    return proxies


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.proxy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=5000, help="of each load (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--events", type=int, default=128, help="events per stream (default: %(default)s)")
    parser.add_argument("--pieces", type=int, default=1, help="writes per stream by the server (default: %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--toy-proxy", metavar="FILE", help="vLLM's toy_proxy_server.py")
    parser.add_argument("--earlier", metavar="FOLDER", help="another checkout of this project, to compare its proxy")
    return parser


def main() -> None:
    """Print a table."""
    args = _parser().parse_args()
    cores = sorted(os.sched_getaffinity(0))
    of_proxy, of_others = cores[0], cores[-1]
    os.sched_setaffinity(0, {of_others})
    body = {"prompt": list(range(args.prompt_tokens)), "stream": True, "max_tokens": args.events}
    sent = Load(json.dumps(body).encode(), args.requests, args.concurrency)
    measured: dict[str, list[Row]] = defaultdict(list)
    with serving(of_others, args.events, args.pieces) as ports:
        for _ in range(args.rounds):
            for name, row in _round(_proxies(args), of_proxy, ports, sent).items():
                measured[name].append(row)
    _show(measured)


if __name__ == "__main__":
    main()
