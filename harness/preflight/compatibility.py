"""Whether the servers fit each other. Pure: reports in, items out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from harness.facts import Role
from harness.preflight.item import Item, Level
from harness.preflight.server_report import LOCAL_CONNECTORS, ServerReport
from harness.redact import redact_url

_NIXL_PULL = ("NixlConnector", "NixlPullConnector")
_NIXL = (*_NIXL_PULL, "NixlPushConnector")


# --- model ---


def check_model(reports: Sequence[ServerReport], name: str) -> Iterator[Item]:
    """All servers serve the model name that requests carry, and loaded the same weights for it."""
    found = [*_missing_name(reports, name), *_unlike_weights(reports, name)]
    yield from found or [Item("model", Level.OK, f"All servers serve {name}{_source(reports, name)}")]


def _source(reports: Sequence[ServerReport], name: str) -> str:
    roots = {root for report in reports if (root := report.models.get(name))}
    return f", loaded from {next(iter(roots))}" if len(roots) == 1 else ""


def _missing_name(reports: Sequence[ServerReport], name: str) -> Iterator[Item]:
    for report in reports:
        if report.names and name not in report.names:
            yield Item(
                "model",
                Level.STOPS,
                f"{report.name} at {redact_url(report.server.url)} does not serve the model {name!r}; it serves "
                f"{', '.join(map(repr, report.names))}",
                "Give a name that all servers serve with --served-model-name, or launch all servers with the same name",
            )


def _unlike_weights(reports: Sequence[ServerReport], name: str) -> Iterator[Item]:
    roots = {report.name: root for report in reports if (root := report.models.get(name)) is not None}
    if len(set(roots.values())) < 2:
        return
    # Copies of one model in two directories are fine, except for NIXL, which compares the whole path.
    another = len({root.rstrip("/").rpartition("/")[2] for root in roots.values()}) > 1
    refused = any(_compares_paths(report) for report in reports)
    listed = ", ".join(f"{server}: {root}" for server, root in roots.items())
    yield Item(
        "model",
        Level.STOPS if another or refused else Level.WARNS,
        f"The servers loaded {name} from different places ({listed})",
        "Launch all servers with the same --model: NIXL refuses a peer whose model path differs",
    )


def _compares_paths(report: ServerReport) -> bool:
    nixl = [connector for connector in report.connectors or () if connector.name in _NIXL]
    return any(connector.extra.get("enforce_handshake_compat", True) is not False for connector in nixl)


# --- connectors ---


def check_connectors(reports: Sequence[ServerReport], *, transfers: bool) -> Iterator[Item]:
    """The servers can transfer KV in their roles, and have the same connectors; ``transfers``: whether they should."""
    found = [*(_no_connector(reports) if transfers else ()), *_wrong_roles(reports), *_unlike_connectors(reports)]
    if found:
        yield from found
    elif all(report.connectors is None for report in reports):
        yield Item(
            "connectors",
            Level.UNREPORTED,
            "The servers do not report the configuration of their connectors",
            "Launch them with VLLM_SERVER_DEV_MODE=1",
        )
    else:
        first = next(report for report in reports if report.connectors is not None)
        yield Item("connectors", Level.OK, f"All servers that report their connectors have {_names(first)}")


def _names(report: ServerReport) -> str:
    return ", ".join(connector.name for connector in report.connectors or ()) or "no connector"


def _no_connector(reports: Sequence[ServerReport]) -> Iterator[Item]:
    for report in reports:
        if report.can_transfer is False:
            prefill = report.server.role is Role.PREFILL
            does = "hands KV to decode servers" if prefill else "fetches KV from prefill servers"
            yield Item(
                "connectors",
                Level.STOPS,
                f"{report.name} at {redact_url(report.server.url)} has no connector that {does}; it has "
                f"{_names(report)}",
                "Launch it with --kv-transfer-config like the other servers, for example NixlConnector with kv_both",
            )


def _wrong_roles(reports: Sequence[ServerReport]) -> Iterator[Item]:
    wrong = {Role.PREFILL: "kv_consumer", Role.DECODE: "kv_producer"}
    for report in reports:
        for connector in report.connectors or ():
            if connector.role == wrong[report.server.role] and connector.name not in LOCAL_CONNECTORS:
                yield Item(
                    "connectors",
                    Level.STOPS,
                    f"{report.name} at {redact_url(report.server.url)} is configured as {connector.role} "
                    f"({connector.name}), but given as a {report.server.role} server",
                    "Check that --prefill-url and --decode-url are not swapped; a prefill server is a kv_producer "
                    "and a decode server a kv_consumer, or both are kv_both",
                )


def _unlike_connectors(reports: Sequence[ServerReport]) -> Iterator[Item]:
    names = {report.name: _names(report) for report in reports if report.connectors is not None}
    if len(set(names.values())) > 1:
        listed = "; ".join(f"{server}: {connectors}" for server, connectors in names.items())
        yield Item(
            "connectors",
            Level.WARNS,
            f"The servers' connectors differ ({listed})",
            "Launch all servers with the same connectors, unless the difference is intended: each server is judged by "
            "its own",
        )


def nixl_handover_expected(reports: Sequence[ServerReport], *, started_proxy: bool) -> bool:
    """Whether to test a handover in the format of NIXL's pull mode on the servers themselves.

    False if only connectors of other kinds are reported. Also False if nothing reported indicates NIXL and the harness
    did not start the proxy, which may have its own handover format.
    """
    names = {connector.name for report in reports for connector in report.connectors or ()}
    if names:
        return not names.isdisjoint(_NIXL_PULL)
    return started_proxy or any(report.nixl_metrics is not False for report in reports)


# --- format of the KV cache ---


def check_kv_format(reports: Sequence[ServerReport]) -> Iterator[Item]:
    """Servers can read each other's KV: dtypes, layout, versions, block sizes and ranks."""
    block_sizes, ranks = [report.server.block_size for report in reports], [report.ranks for report in reports]
    found = [
        *_unlike("dtype", {one.name: one.model_dtype for one in reports}, Level.STOPS, "--dtype"),
        *_unlike("KV cache dtype", {one.name: one.kv_dtype for one in reports}, Level.STOPS, "--kv-cache-dtype"),
        *_unlike("KV layout", {one.name: one.layout for one in reports}, Level.WARNS, "VLLM_KV_CACHE_LAYOUT"),
        *_unlike("engine version", {one.name: one.server.version for one in reports}, Level.WARNS, "the vLLM version"),
        *_not_multiples(reports, "blocks of {} and {} tokens", "--block-size", block_sizes),
        *_not_multiples(reports, "{} and {} tensor-parallel ranks", "--tensor-parallel-size", ranks),
    ]
    yield from found or [Item("KV cache", Level.OK, _format_of(reports))]


def _format_of(reports: Sequence[ServerReport]) -> str:
    sizes = sorted({report.server.block_size for report in reports if report.server.block_size is not None})
    types = sorted({report.kv_dtype for report in reports if report.kv_dtype is not None})
    blocks = f"Blocks of {' and '.join(map(str, sizes))} tokens" if sizes else "Block size not reported"
    return f"{blocks}, {', '.join(types) or 'dtype not reported'}"


def _unlike(fact: str, values: Mapping[str, str | None], level: Level, setting: str) -> Iterator[Item]:
    known = {name: value for name, value in values.items() if value is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in known.items())
        yield Item(
            "KV cache",
            level,
            f"The servers differ in {fact} ({listed})",
            f"Launch all servers with the same setting ({setting}): a decode server refuses or misreads KV in another "
            "format",
        )


def _not_multiples(
    reports: Sequence[ServerReport], text: str, flag: str, sizes: Sequence[int | None]
) -> Iterator[Item]:
    prefill, decode = (
        sorted({size for one, size in zip(reports, sizes, strict=True) if size and one.server.role is role})
        for role in Role
    )
    for p, d in product(prefill, decode):
        if max(p, d) % min(p, d):
            yield Item(
                "KV cache",
                Level.STOPS,
                f"Prefill and decode servers have {text.format(p, d)}, and neither number is a multiple of the other",
                f"Launch them with sizes of which one is a multiple of the other ({flag})",
            )
