"""Whether the user gave every server once, and no proxy as a server. Pure: reports in, items out."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from urllib.parse import urlsplit

from harness.preflight.item import Item, Level
from harness.preflight.server_report import ServerReport
from harness.redact import redact_url

Addresses = Mapping[str, frozenset[str]]
"""IP addresses by host name; a missing name is its own address."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def hosts(urls: Sequence[str]) -> set[str]:
    """Host names of URLs."""
    return {urlsplit(url).hostname or "" for url in urls}


def same_address(one: str, other: str, addresses: Addresses) -> bool:
    """Whether two URLs lead to the same port and path of the same machine."""
    first, second = urlsplit(one), urlsplit(other)
    if _port(one) != _port(other) or first.path.rstrip("/") != second.path.rstrip("/"):
        return False
    return not _addresses(first.hostname, addresses).isdisjoint(_addresses(second.hostname, addresses))


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    try:
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    # A port beyond 65535.
    except ValueError:
        return None


def _addresses(host: str | None, addresses: Addresses) -> frozenset[str]:
    name = (host or "").lower()
    found = addresses.get(name, frozenset({name}))
    # All names and addresses of this machine are one place: a port is not used twice on it.
    return frozenset({"loopback"}) if any(_is_loopback(address) for address in found) else found


def _is_loopback(address: str) -> bool:
    if address in ("localhost", "::1", "0.0.0.0", "::") or address.startswith("::ffff:127."):  # noqa: S104 - compared
        return True
    try:
        return socket.inet_aton(address)[0] == 127 and address.count(".") == 3
    except OSError:
        return False


def check_distinct(reports: Sequence[ServerReport], proxy_url: str | None, addresses: Addresses) -> Iterator[Item]:
    """Every server is given once, and the proxy is not one of the servers."""
    found = [*_equal_servers(reports, addresses), *_proxies(reports, proxy_url, addresses)]
    yield from found or [Item("servers", Level.OK, f"{len(reports)} different servers")]


def _equal_servers(reports: Sequence[ServerReport], addresses: Addresses) -> Iterator[Item]:
    for first, second in combinations(reports, 2):
        urls = f"{redact_url(first.server.url)} and {redact_url(second.server.url)}"
        if same_address(first.server.url, second.server.url, addresses):
            yield same_server_item(first, second, f"{urls} are the same address")
        elif first.engine_id is not None and first.engine_id == second.engine_id:
            yield same_server_item(first, second, f"{urls} lead to the same engine ({first.engine_id})")


def same_server_item(first: ServerReport, second: ServerReport, why: str) -> Item:
    """The finding that two of the given servers are the same."""
    return Item(
        "servers",
        Level.STOPS,
        f"{first.name} and {second.name} are the same server: {why}",
        f"Give each server once, with --{first.server.role}-url and --{second.server.role}-url",
    )


def indistinguishable(reports: Sequence[ServerReport], addresses: Addresses) -> list[tuple[ServerReport, ServerReport]]:
    """Pairs with different addresses that may be the same server: same start time and pool, and no engine id."""
    return [
        (first, second)
        for first, second in combinations(reports, 2)
        if first.started is not None
        and first.started == second.started
        and first.server.num_blocks == second.server.num_blocks
        and (first.engine_id is None or second.engine_id is None)
        and not same_address(first.server.url, second.server.url, addresses)
    ]


def _proxies(reports: Sequence[ServerReport], proxy_url: str | None, addresses: Addresses) -> Iterator[Item]:
    for report in reports:
        url, role = report.server.url, report.server.role
        if report.is_proxy:
            yield Item(
                "servers",
                Level.STOPS,
                f"--{role}-url {redact_url(url)} is the address of a proxy (it answers /proxy/status), not of a server",
                f"Give the address of the {role} server itself, and the proxy's address with --base-url",
            )
        elif proxy_url is not None and same_address(url, proxy_url, addresses):
            yield Item(
                "servers",
                Level.STOPS,
                f"--base-url {redact_url(proxy_url)} is the address of {report.name}, not of a proxy",
                "Give the proxy's address, or leave --base-url out: the harness then starts its own proxy",
            )
