"""Puts relays between the proxy and servers, before NIXL's side channel, and before servers' ``/metrics``.

They are only there if a fault of the run needs them, in one process beside the servers and the harness.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from harness.deploy.nursery import Nursery
from harness.deploy.ports import LOOPBACK, free_ports
from harness.errors import UsageError

SIDE_CHANNEL = "side-channel"
"""The link by which decode servers ask prefill-0 for its memory layout."""
_METRICS = "metrics-{}"
"""The name of the relay before a server's metrics."""
_VARIABLE = "PD_RELAYS"
"""As in harness.faults.relay_process, the module that the process runs."""


@dataclass(frozen=True, slots=True)
class Relaying:
    """The relays of a deployment."""

    control: str = ""
    """The address at which they are told what to do; empty: there are none."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """The address of each relay, by its name."""
    detours: tuple[str, ...] = ()
    """For the proxy: which addresses it must use in place of which, as its ``--detour`` takes them."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The address at which a server's metrics are read, by the server's name."""


async def start_relays(
    nursery: Nursery, wanted: Sequence[str], servers: Mapping[str, str], side_channel: str | None = None
) -> Relaying:
    """Start the wanted relays and return when they listen.

    ``servers``: the URL of each server, by its name. ``side_channel``: host and port of prefill-0's side channel; None
    if it is not known. Raises UsageError if there is nothing that a wanted relay could stand before.
    """
    if not wanted:
        return Relaying()
    links, metrics = _split(wanted, servers, side_channel)
    control, *ports = free_ports(1 + len(links) + len(metrics))
    at = dict(zip((*links, *metrics), ports, strict=True))
    plan = {
        "control": control,
        "links": {name: (at[name], *_host_and_port(address)) for name, address in links.items()},
        "metrics": {name: (at[name], url) for name, url in metrics.items()},
    }
    # Passed in the environment, since URLs may hold credentials, and every user can see arguments.
    nursery.start(
        "relays",
        [sys.executable, "-m", "harness.faults.relay_process"],
        {**os.environ, _VARIABLE: json.dumps(plan)},
    )
    urls = {name: f"http://{LOOPBACK}:{port}" for name, port in at.items()}
    relaying = Relaying(
        f"http://{LOOPBACK}:{control}",
        urls,
        tuple(f"{address}={LOOPBACK}:{at[name]}" for name, address in links.items()),
        {server: urls[name] for server in servers if (name := _METRICS.format(server)) in metrics},
    )
    await nursery.all_answer({"relays": relaying.control})
    return relaying


def _split(
    wanted: Iterable[str], servers: Mapping[str, str], side_channel: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The addresses before which relays stand: ``HOST:PORT`` of links, and URLs of servers whose metrics are read."""
    known = {name: _address(url) for name, url in servers.items()}
    if side_channel is not None:
        known[SIDE_CHANNEL] = side_channel
    metrics = {_METRICS.format(name): url for name, url in servers.items()}
    names = tuple(dict.fromkeys(wanted))
    if unknown := [name for name in names if name not in known and name not in metrics]:
        links = ", ".join((*known, *metrics))
        raise UsageError(f"A fault needs a relay before {unknown[0]}, which this deployment does not have: {links}.")
    return (
        {name: known[name] for name in names if name in known},
        {name: metrics[name] for name in names if name in metrics},
    )


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
