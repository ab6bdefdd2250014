"""Whether decode servers fetch the KV that is handed to them, by their counters over the first transfers. Pure."""

from collections.abc import Iterator, Sequence

from harness.facts import Server
from harness.observe.growth import Delta
from harness.preflight.item import Item, Level
from harness.redact import redact_url


def transfers_counted(growth: Sequence[Delta | None], handovers: int) -> bool:
    """Whether each decode server that counts NIXL transfers has counted all of its handovers."""
    return all(one is None or (reads := one.of("nixl_transfers")) is None or reads >= handovers for one in growth)


def check_first_transfers(decode: Sequence[Server], growth: Sequence[Delta | None]) -> Iterator[Item]:
    """Finds decode servers without a connector: they count no NIXL transfers and compute every prompt themselves.

    ``decode``: the servers that do not report connectors of another kind than NIXL.

    A server that has a connector and did not use it is not a fault of the configuration: the run's verdict covers it.
    """
    for server, grown in zip(decode, growth, strict=True):
        if grown is None:
            continue
        if grown.of("nixl_bytes") is None and grown.of("external_kv_transfer") == 0:
            yield Item(
                "transfer",
                Level.STOPS,
                f"{server.name} at {redact_url(server.url)} has no connector: when a prompt's KV was handed to it, it "
                "computed the prompt itself, and it has no counters of KV transfers",
                "Launch it with the same --kv-transfer-config as the prefill servers",
            )
        elif grown.of("external_kv_transfer"):
            yield Item("transfer", Level.OK, f"{server.name} fetched a prompt's KV from every prefill server")
        else:
            yield Item(
                "transfer",
                Level.WARNS,
                f"{server.name} got a handover of a prompt's KV, but counted no token as transferred",
            )
