"""Reads a server's KV connectors from its configuration: the kinds that the harness knows, and the names of all others.

Rule 1. A connector is known by its class name, and only if the class is vLLM's own. With ``kv_connector_module_path``,
        a class of the same name may transfer and count differently.
Rule 2. MultiConnector stands for its children, in order. Any other wrapper is one unknown connector, since the harness
        does not know how it uses its children.
Rule 3. The offload tier is known if it is vLLM's own in host memory with least-recently-used eviction, or the harness's
        version of it for a CPU. A different spec or eviction policy, or a store threshold, makes the tier unknown.
Rule 4. If the list cannot be read, neither the presence nor the absence of a connector is known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.facts import Connector
from harness.observe.forms import mapping, name_of, whole

_KINDS = {
    "NixlConnector": Connector.NIXL,
    # The newer name of NixlConnector, since vLLM also has NixlPushConnector.
    "NixlPullConnector": Connector.NIXL,
    "OffloadingConnector": Connector.OFFLOADING,
}
_TIERS = (None, "CPUOffloadingSpec")
_OUR_TIER = ("HostOffloadingSpec", "pd_harness_engine_plugins.cpu_offload")
"""Class and module of the tier with which the harness launches an engine on a CPU."""
_WRAPPER = "MultiConnector"
_VLLM = "vllm."
_LONGEST_NAME = 120
"""Characters of a class name that are kept, because the name is printed."""


class _UnreadableError(ValueError):
    """The list of connectors does not have vLLM's form."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A server's connectors."""

    known: tuple[Connector, ...] | None
    """The connectors of known kinds, in MultiConnector's order; None if they could not be found out."""
    listed: bool
    """Whether the server's configuration listed the connectors; otherwise they were found from its metrics."""
    unknown: tuple[str, ...] = ()
    """The class names of all other connectors."""
    before_unknown: int = 0
    """How many known connectors come before the first unknown one."""
    tier: Mapping[str, Any] | None = None
    """The offload tier's configuration, if the server reported it."""
    nixl: Mapping[str, Any] | None = None
    """NIXL's configuration, if the server reported it."""

    def chunk_size(self, block_size: int | None) -> int | None:
        """Tokens per chunk of the offload tier; by default one block."""
        if self.tier is None:
            return None
        if "block_size" in self.tier:
            return whole(self.tier["block_size"])
        per_chunk = whole(self.tier.get("blocks_per_chunk", 1))
        return None if block_size is None or per_chunk is None else block_size * per_chunk

    @property
    def tier_bytes(self) -> int | None:
        """Size of the offload tier in bytes."""
        return None if self.tier is None else whole(self.tier.get("cpu_bytes_to_use"))

    @property
    def prompt_only(self) -> bool | None:
        """Whether the tier stores only prompts."""
        if self.tier is None:
            return None
        # True is vLLM 0.32's default; a server reports only the keys that were set.
        value = self.tier.get("offload_prompt_only", True)
        return value if isinstance(value, bool) else None


def read_connectors(transfer: object) -> Connected | None:
    """Read the connectors from a ``kv_transfer_config``; None if it cannot be read."""
    if transfer is None:
        return Connected((), listed=True)
    if not mapping(transfer):
        return None
    try:
        every = list(_flattened(mapping(transfer)))
    except _UnreadableError:
        return None
    kinds = [kind for kind, _ in every]
    first_unknown = next((n for n, kind in enumerate(kinds) if not isinstance(kind, Connector)), len(kinds))
    return Connected(
        known=tuple(kind for kind in kinds if isinstance(kind, Connector)),
        listed=True,
        unknown=tuple(kind for kind in kinds if not isinstance(kind, Connector)),
        before_unknown=first_unknown if first_unknown < len(kinds) else 0,
        tier=next((extra for kind, extra in every if kind is Connector.OFFLOADING), None),
        nixl=next((extra for kind, extra in every if kind is Connector.NIXL), None),
    )


def connectors_in_metrics(*, nixl: bool, offloads: bool) -> Connected:
    """List the connectors whose families are in ``/metrics``. Their order is unknown; NIXL is put first."""
    found = ((Connector.NIXL, nixl), (Connector.OFFLOADING, offloads))
    return Connected(tuple(kind for kind, there in found if there) or None, listed=False)


def _flattened(transfer: Mapping[str, Any]) -> Iterator[tuple[Connector | str, Mapping[str, Any]]]:
    """Yield each connector's kind, or its class name if the kind is unknown, with its extra configuration."""
    if transfer.get("kv_connector") is None:
        return
    name = name_of(transfer.get("kv_connector"))
    if name is None:
        raise _UnreadableError
    module = name_of(transfer.get("kv_connector_module_path"))
    extra = mapping(transfer.get("kv_connector_extra_config"))
    if module is not None and not module.startswith(_VLLM):
        yield f"{name} of {module}"[:_LONGEST_NAME], extra
    elif name == _WRAPPER:
        children = extra.get("connectors")
        if not isinstance(children, list):
            raise _UnreadableError
        for child in children:
            if not mapping(child).get("kv_connector"):
                raise _UnreadableError
            yield from _flattened(mapping(child))
    else:
        kind = _KINDS.get(name, name)
        special = _special_tier(extra) if kind is Connector.OFFLOADING else ""
        yield (f"{name} with {special}"[:_LONGEST_NAME] if special else kind), extra


def _special_tier(extra: Mapping[str, Any]) -> str:
    """Describe how an offload tier differs from the known one (rule 3); empty if it does not."""
    own = (extra.get("spec_name"), extra.get("spec_module_path")) == _OUR_TIER
    if extra.get("spec_name") not in _TIERS and not own:
        return str(extra["spec_name"])
    if extra.get("eviction_policy", "lru") != "lru" or extra.get("cache_policy_module_path"):
        return f"eviction policy {extra.get('eviction_policy')}"
    threshold = extra.get("store_threshold")
    return "" if threshold in (None, 0, 1, "0", "1") else f"store threshold {threshold}"
