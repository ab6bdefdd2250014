"""Whether the servers are the ones that are meant, and fit each other. Pure: what they told in, items out."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from urllib.parse import urlsplit

from harness.facts import Role
from harness.preflight.item import Item, Level
from harness.preflight.told import STORES, Told
from harness.preflight.words import shown_url

Resolve = Mapping[str, frozenset[str]]
"""Addresses by host name; a name that is not in it stands for itself."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_COMPATIBLE = "enforce_handshake_compat"
_PULLING = ("NixlConnector", "NixlPullConnector")
_NIXL = ("NixlConnector", "NixlPullConnector", "NixlPushConnector")


def hosts(urls: Sequence[str]) -> set[str]:
    """Host names of URLs."""
    return {urlsplit(url).hostname or "" for url in urls}


def same_address(one: str, other: str, resolved: Resolve) -> bool:
    """Whether two URLs lead to one port of one machine."""
    first, second = urlsplit(one), urlsplit(other)
    if _port(one) != _port(other) or first.path.rstrip("/") != second.path.rstrip("/"):
        return False
    return not _addresses(first.hostname, resolved).isdisjoint(_addresses(second.hostname, resolved))


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    try:
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # beyond 65535
        return None


def _addresses(host: str | None, resolved: Resolve) -> frozenset[str]:
    name = (host or "").lower()
    found = resolved.get(name, frozenset({name}))
    # Every spelling of this machine is the same place to listen, as far as one port can be asked twice.
    return frozenset({"loopback"}) if any(_is_loopback(address) for address in found) else found


def _is_loopback(address: str) -> bool:
    if address in ("localhost", "::1", "0.0.0.0", "::") or address.startswith("::ffff:127."):  # noqa: S104 - compared
        return True
    try:
        return socket.inet_aton(address)[0] == 127 and address.count(".") == 3
    except OSError:
        return False


def distinct(told: Sequence[Told], proxy_url: str | None, resolved: Resolve) -> Iterator[Item]:
    """Every server is another one, and the proxy is none of them."""
    found = [*_equal_servers(told, resolved), *_proxies(told, proxy_url, resolved)]
    yield from found or [Item("servers", Level.OK, f"{len(told)} servers, each another one")]


def _equal_servers(told: Sequence[Told], resolved: Resolve) -> Iterator[Item]:
    for one, other in combinations(told, 2):
        if same_address(one.server.url, other.server.url, resolved):
            yield _same(one, other, "have the same address")
        elif one.identity is not None and one.identity == other.identity:
            yield _same(one, other, f"are one engine ({one.identity})")


def _same(one: Told, other: Told, why: str) -> Item:
    return same_server(one, other, f"{shown_url(one.server.url)} and {shown_url(other.server.url)} {why}")


def same_server(one: Told, other: Told, why: str) -> Item:
    """That two of the servers are one."""
    return Item(
        "servers",
        Level.STOPS,
        f"{one.name} and {other.name} are the same server: {why}",
        f"Give each server once, with --{one.server.role}-url and --{other.server.role}-url",
    )


def may_be_one(told: Sequence[Told], resolved: Resolve) -> list[tuple[Told, Told]]:
    """Pairs of unlike addresses that nothing tells apart: processes that began at one moment, with like pools."""
    return [
        (one, other)
        for one, other in combinations(told, 2)
        if one.started is not None
        and one.started == other.started
        and one.server.num_blocks == other.server.num_blocks
        and (one.identity is None or other.identity is None)
        and not same_address(one.server.url, other.server.url, resolved)
    ]


def _proxies(told: Sequence[Told], proxy_url: str | None, resolved: Resolve) -> Iterator[Item]:
    for one in told:
        flag = f"--{one.server.role}-url"
        if one.is_proxy:
            yield Item(
                "servers",
                Level.STOPS,
                f"{flag} {shown_url(one.server.url)} is a proxy (it answers /proxy/status), not a server",
                f"Give the address of the {one.server.role} server itself, and the proxy's with --base-url",
            )
        elif proxy_url is not None and same_address(one.server.url, proxy_url, resolved):
            yield Item(
                "servers",
                Level.STOPS,
                f"--base-url {shown_url(proxy_url)} is the address of {one.name}, not of a proxy",
                "Give the proxy's address, or leave --base-url out: the harness then starts a proxy of its own",
            )


# --- model ---


def model(told: Sequence[Told], name: str) -> Iterator[Item]:
    """The name that requests carry is served everywhere, and stands for the same weights."""
    found = [*_missing_name(told, name), *_unlike_weights(told, name)]
    yield from found or [Item("model", Level.OK, f"{name} on every server{_from(told, name)}")]


def _from(told: Sequence[Told], name: str) -> str:
    roots = {root for one in told if (root := one.models.get(name))}
    return f", from {next(iter(roots))}" if len(roots) == 1 else ""


def _missing_name(told: Sequence[Told], name: str) -> Iterator[Item]:
    for one in told:
        if one.names and name not in one.names:
            yield Item(
                "model",
                Level.STOPS,
                f"{one.name} at {shown_url(one.server.url)} does not serve the model {name!r}; it serves "
                f"{', '.join(map(repr, one.names))}",
                "Give a name that every server has with --served-model-name, or launch all with the same one",
            )


def _unlike_weights(told: Sequence[Told], name: str) -> Iterator[Item]:
    roots = {one.name: root for one in told if (root := one.models.get(name)) is not None}
    if len(set(roots.values())) < 2:
        return
    # Of one model in two directories nothing is wrong but for NIXL, which refuses a peer by the path's name.
    another = len({root.rstrip("/").rpartition("/")[2] for root in roots.values()}) > 1
    refused = any(_refuses_unlike(one) for one in told)
    listed = ", ".join(f"{server}: {root}" for server, root in roots.items())
    yield Item(
        "model",
        Level.STOPS if another or refused else Level.WARNS,
        f"The servers loaded {name} from different places ({listed})",
        "Launch all with the same --model; NIXL compares the paths and refuses a peer with another one",
    )


def _refuses_unlike(one: Told) -> bool:
    nixl = [link for link in one.links or () if link.name in _NIXL]
    return any(link.extra.get(_COMPATIBLE, True) is not False for link in nixl)


# --- connectors ---


def connectors(told: Sequence[Told], *, transfers: bool) -> Iterator[Item]:
    """P hands over, D takes, and their connectors are of the same kinds. ``transfers``: whether any is to."""
    found = [*(_no_connector(told) if transfers else ()), *_wrong_roles(told), *_unlike_connectors(told)]
    if found:
        yield from found
    elif all(one.links is None for one in told):
        yield Item(
            "connectors",
            Level.UNTOLD,
            "The servers do not show their connectors' configuration",
            "Launch them with VLLM_SERVER_DEV_MODE=1",
        )
    else:
        first = next(one for one in told if one.links is not None)
        yield Item("connectors", Level.OK, f"{_named(first)}, on every server that tells")


def _named(one: Told) -> str:
    return ", ".join(link.name for link in one.links or ()) or "no connector"


def _no_connector(told: Sequence[Told]) -> Iterator[Item]:
    for one in told:
        if one.hands_over is False:
            does = "hands KV to decode servers" if one.server.role is Role.PREFILL else "takes KV from prefill servers"
            yield Item(
                "connectors",
                Level.STOPS,
                f"{one.name} at {shown_url(one.server.url)} has no connector that {does} ({_named(one)})",
                "Launch it with --kv-transfer-config as the other servers, for example NixlConnector with kv_both",
            )


def _wrong_roles(told: Sequence[Told]) -> Iterator[Item]:
    wrong = {Role.PREFILL: "kv_consumer", Role.DECODE: "kv_producer"}
    for one in told:
        for link in one.links or ():
            if link.role == wrong[one.server.role] and link.name not in STORES:
                yield Item(
                    "connectors",
                    Level.STOPS,
                    f"{one.name} at {shown_url(one.server.url)} is configured as {link.role} ({link.name}), and is "
                    f"given as a {one.server.role} server",
                    "Check that --prefill-url and --decode-url are not swapped; a prefill server is a kv_producer "
                    "and a decode server a kv_consumer, or both are kv_both",
                )


def _unlike_connectors(told: Sequence[Told]) -> Iterator[Item]:
    named = {one.name: tuple(link.name for link in one.links) for one in told if one.links is not None}
    if len(set(named.values())) > 1:
        listed = "; ".join(f"{server}: {', '.join(names) or 'none'}" for server, names in named.items())
        yield Item(
            "connectors",
            Level.WARNS,
            f"The servers' connectors differ ({listed})",
            "Each is judged by its own; launch all alike if that is not meant",
        )


def asks_nixl(told: Sequence[Told], *, started_proxy: bool) -> bool:
    """Whether a handover in the form of NIXL's pull is to be tried on the servers themselves.

    Not where only connectors of other kinds are told; nor where nothing tells of NIXL and the proxy is one that the
    harness did not start, which may hand over in a way of its own.
    """
    named = {link.name for one in told for link in one.links or ()}
    if named:
        return not named.isdisjoint(_PULLING)
    return started_proxy or any(one.families is None or "nixl" in one.families for one in told)


# --- form of the KV cache ---


def form(told: Sequence[Told]) -> Iterator[Item]:
    """Types, layout, block sizes and ranks that one server can read of another's."""
    found = [
        *_unlike("dtype", {one.name: one.model_dtype for one in told}, Level.STOPS, "--dtype"),
        *_unlike("KV cache dtype", {one.name: one.kv_dtype for one in told}, Level.STOPS, "--kv-cache-dtype"),
        *_unlike("KV layout", {one.name: one.layout for one in told}, Level.WARNS, "VLLM_KV_CACHE_LAYOUT"),
        *_unlike("engine version", {one.name: one.server.version for one in told}, Level.WARNS, "one version"),
        *_not_multiples(told, "blocks of {} and {} tokens", "--block-size", [one.server.block_size for one in told]),
        *_not_multiples(told, "{} and {} ranks", "--tensor-parallel-size", [one.ranks for one in told]),
    ]
    yield from found or [Item("KV cache", Level.OK, _form_of(told))]


def _form_of(told: Sequence[Told]) -> str:
    sizes = sorted({one.server.block_size for one in told if one.server.block_size is not None})
    types = sorted({one.kv_dtype for one in told if one.kv_dtype is not None})
    blocks = " and ".join(map(str, sizes)) or "an unknown number of"
    return f"blocks of {blocks} tokens, {', '.join(types) or 'dtype not told'}"


def _unlike(what: str, values: Mapping[str, str | None], level: Level, flag: str) -> Iterator[Item]:
    known = {name: value for name, value in values.items() if value is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in known.items())
        yield Item(
            "KV cache",
            level,
            f"The servers differ in {what} ({listed})",
            f"Launch all with the same ({flag}): a decode server refuses, or misreads, KV of another form",
        )


def _not_multiples(told: Sequence[Told], text: str, flag: str, sizes: Sequence[int | None]) -> Iterator[Item]:
    prefill = {size for one, size in zip(told, sizes, strict=True) if size and one.server.role is Role.PREFILL}
    decode = {size for one, size in zip(told, sizes, strict=True) if size and one.server.role is Role.DECODE}
    for p, d in product(sorted(prefill), sorted(decode)):
        if max(p, d) % min(p, d):
            yield Item(
                "KV cache",
                Level.STOPS,
                f"Prefill and decode servers have {text.format(p, d)}, and neither is a multiple of the other",
                f"Launch them with sizes of which one divides the other ({flag})",
            )
