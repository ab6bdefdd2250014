"""Whether decode servers take what is handed to them: their counters over the first transfers. Pure."""

from collections.abc import Iterator, Sequence

from harness.facts import Server
from harness.observe.counters import Delta
from harness.preflight.item import Item, Level
from harness.preflight.words import shown_url


def took(since: Sequence[Delta | None], handovers: int) -> bool:
    """Whether every decode server has counted so many reads; True of one that counts none at all."""
    return all(one is None or (reads := one.of("nixl_transfers")) is None or reads >= handovers for one in since)


def taken(decode: Sequence[Server], since: Sequence[Delta | None]) -> Iterator[Item]:
    """A server without NIXL's counters that took no token by transfer has no connector: it computes every prompt.

    ``decode``: those that do not show their connectors to be of another kind than NIXL.

    One that has a connector, and did not use it, is no matter of configuration: the run's verdict says it.
    """
    for server, one in zip(decode, since, strict=True):
        if one is None:
            continue
        if one.of("nixl_bytes") is None and one.of("external_kv_transfer") == 0:
            yield Item(
                "transfer",
                Level.STOPS,
                f"{server.name} at {shown_url(server.url)} was handed a prompt's KV, computed the prompt itself, and "
                "counts no KV transfers at all: it has no connector",
                "Launch it with --kv-transfer-config as the prefill servers",
            )
        elif one.of("external_kv_transfer"):
            yield Item("transfer", Level.OK, f"{server.name} took a prompt's KV from every prefill server")
        else:
            yield Item("transfer", Level.WARNS, f"{server.name} was handed a prompt's KV, and counts none as taken")
