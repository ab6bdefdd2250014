"""Which KV connectors a server has: those that the harness knows, and the names of those that it does not.

Rule 1. A connector is known by its class, and only where that is vLLM's own: ``kv_connector_module_path`` may bring
        another class of the same name, which counts and moves what it likes.
Rule 2. MultiConnector stands for its children, in order. Of another wrapper it is not known what it does with them,
        so it is one unknown connector.
Rule 3. The offload tier is known where it is vLLM's own in host memory, least recently used out first, or the harness's
        copy of it for a CPU. Another spec, another policy or a threshold stores and restores by rules of its own.
Rule 4. A list that cannot be read tells nothing: neither which connectors there are, nor that there are none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Connector
from harness.observe.forms import mapping, name_of, whole

_KINDS = {
    "NixlConnector": Connector.NIXL,
    # What vLLM calls NixlConnector since there is NixlPushConnector beside it.
    "NixlPullConnector": Connector.NIXL,
    "OffloadingConnector": Connector.OFFLOADING,
}
_TIERS = (None, "CPUOffloadingSpec")
_OUR_TIER = ("HostOffloadingSpec", "pd_harness_engine_plugins.cpu_offload")
"""Class and module of the tier that the harness gives to an engine on a CPU."""
_WRAPPER = "MultiConnector"
_OWN = "vllm."
_MOST_NAME = 120
"""Characters of a class name that are kept: it is printed."""


class _UnreadableError(ValueError):
    """The list of connectors is not of vLLM's form."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A server's connectors."""

    known: tuple[Connector, ...] | None
    """In MultiConnector's order; None when nothing tells."""
    listed: bool
    """Whether the server listed them; else they were found by what they expose."""
    unknown: tuple[str, ...] = ()
    before_unknown: int = 0
    """How many of the known ones stand before the first unknown one."""
    tier: Mapping[str, Any] | None = field(default=None)
    """The offload tier's own configuration, where it was told."""

    def chunk_size(self, block_size: int | None) -> int | None:
        """Tokens per chunk of the offload tier; one block unless it says otherwise."""
        if self.tier is None:
            return None
        if "block_size" in self.tier:
            return whole(self.tier["block_size"])
        per_chunk = whole(self.tier.get("blocks_per_chunk", 1))
        return None if block_size is None or per_chunk is None else block_size * per_chunk

    @property
    def tier_bytes(self) -> int | None:
        """Host memory that the tier was given."""
        return None if self.tier is None else whole(self.tier.get("cpu_bytes_to_use"))

    @property
    def prompt_only(self) -> bool | None:
        """Whether the tier takes prompts alone."""
        if self.tier is None:
            return None
        # vLLM 0.32's default; a server that tells its configuration tells only what was set.
        told = self.tier.get("offload_prompt_only", True)
        return told if isinstance(told, bool) else None


def connected(transfer: object) -> Connected | None:
    """From a ``kv_transfer_config``; None when it cannot be read."""
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
    )


def exposed(*, nixl: bool, offloads: bool) -> Connected:
    """From the families in ``/metrics``: at least these; NIXL first, as it is where nothing tells the order."""
    found = ((Connector.NIXL, nixl), (Connector.OFFLOADING, offloads))
    return Connected(tuple(kind for kind, there in found if there) or None, listed=False)


def _flattened(transfer: Mapping[str, Any]) -> Iterator[tuple[Connector | str, Mapping[str, Any]]]:
    """Each connector, or the name of its class where that is not known, with its extra configuration."""
    if transfer.get("kv_connector") is None:
        return
    name = name_of(transfer.get("kv_connector"))
    if name is None:
        raise _UnreadableError
    module = name_of(transfer.get("kv_connector_module_path"))
    extra = mapping(transfer.get("kv_connector_extra_config"))
    if module is not None and not module.startswith(_OWN):
        yield f"{name} of {module}"[:_MOST_NAME], extra
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
        yield (f"{name} with {special}"[:_MOST_NAME] if special else kind), extra


def _special_tier(extra: Mapping[str, Any]) -> str:
    """What makes an offload tier another than the one that is known; empty where nothing does."""
    ours = (extra.get("spec_name"), extra.get("spec_module_path")) == _OUR_TIER
    if extra.get("spec_name") not in _TIERS and not ours:
        return str(extra["spec_name"])
    if extra.get("eviction_policy", "lru") != "lru" or extra.get("cache_policy_module_path"):
        return f"eviction policy {extra.get('eviction_policy')}"
    threshold = extra.get("store_threshold")
    return "" if threshold in (None, 0, 1, "0", "1") else f"store threshold {threshold}"
