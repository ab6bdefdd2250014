"""What an earlier version of the harness stored, in the form of this one: a deployment's facts, and requests.

Until each server had its own facts, the deployment had those of the first server, for all of them: connectors, the
offload tier's configuration and the type of the KV cache. They are given to every server that has none of its own. A
chunk was stored in the first server's tokens, and is as many blocks on each.
"""

from typing import Any

from harness.scenario import Condition, Purpose, Route
from harness.store.codec import MalformedError

_OF_SERVERS = (
    "connectors",
    "offload_block_size",
    "offload_blocks",
    "offload_bytes",
    "offload_prompt_only",
    "kv_dtype",
)


def of_this_form(content: object) -> object:
    """A stored deployment's JSON as this version writes it; whatever is no such thing is returned as it is."""
    if not isinstance(content, dict) or not isinstance(content.get("servers"), list):
        return content
    common = {name: content[name] for name in _OF_SERVERS if name in content}
    if not common:
        return content
    servers = [server for server in content["servers"] if isinstance(server, dict)]
    blocks = next(filter(None, (_size(server.get("block_size")) for server in servers)), None)
    kept = {name: value for name, value in content.items() if name not in _OF_SERVERS}
    return kept | {"servers": [_with(server, common, blocks) for server in content["servers"]]}


def _with(server: Any, common: dict[str, Any], first_block: int | None) -> Any:
    if not isinstance(server, dict):
        return server
    chunk, block = _size(common.get("offload_block_size")), _size(server.get("block_size"))
    if chunk and block and first_block:
        common = common | {"offload_block_size": chunk // first_block * block}
    return common | server


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


# --- requests, before they had a purpose ---

_KINDS = {
    "probe": Purpose.PROBE,
    "retry": Purpose.RETRY,
    "reset": Purpose.RESET,
    "salt": Purpose.SALT_TEST,
}
_RETRIES = {"together": Condition.UNDER_LOAD, "alone": Condition.ALONE}
_SALT_TESTS = {
    "kept": Condition.SALT_FIRST,
    "again": Condition.SALT_AGAIN,
    "again-counted": Condition.SALT_COUNTED,
    "forced": Condition.SALT_FORCED,
    "other": Condition.SALT_OTHER,
    "path-kept": Condition.SALT_PROXY,
    "path-other": Condition.SALT_PROXY_OTHER,
}


def with_purpose(entry: dict[str, Any]) -> dict[str, Any]:
    """A ``sent`` entry, whose request says what it is for; one that does already, and other entries, as they are.

    Then, and only then, some of it was told by names: a probe's cache and a suspect's control by their phases.
    """
    request = entry.get("request")
    if not isinstance(request, dict) or not {"reference_for", "inquiry"} & request.keys():
        return entry
    plain = {name: value for name, value in request.items() if name not in ("reference_for", "inquiry")}
    phase = entry.get("phase") if isinstance(entry.get("phase"), str) else ""
    return {**entry, "request": {**plain, **_meant(request, str(phase))}}


def _meant(request: dict[str, Any], phase: str) -> dict[str, Any]:
    about, inquiry = request.get("reference_for"), request.get("inquiry")
    sampling = request.get("sampling")
    forced = isinstance(sampling, dict) and sampling.get("prompt_logprobs") is not None
    if isinstance(inquiry, dict):
        return _inquired(inquiry, phase, forced=forced)
    if forced:
        return _fields(Purpose.FORCING, about)
    if request.get("route") != str(Route.DECODE):
        return _fields(Purpose.REFERENCE, about)
    return _fields(Purpose.CONTROL, about, Condition.SUSPECT if phase.startswith("confirmation") else None)


def _inquired(inquiry: dict[str, Any], phase: str, *, forced: bool) -> dict[str, Any]:
    kind, about, under = (inquiry.get(name) or None for name in ("kind", "about", "under"))
    if kind == "supposition":
        return _fields(Purpose.FORCING if forced else Purpose.OWNER_TEST, about) | {"owner": under}
    if not isinstance(kind, str) or kind not in _KINDS:
        raise MalformedError(f"requests of kind {kind!r:.60} are not known to this version of the harness")
    condition = {
        "probe": Condition.OFFLOAD_TIER if phase.endswith("-tier") else Condition.PREFIX_CACHE,
        "retry": _RETRIES.get(str(under)),
        "salt": _SALT_TESTS.get(str(under)),
    }.get(kind)
    return _fields(_KINDS[kind], about, condition)


def _fields(purpose: Purpose, about: object, condition: Condition | None = None) -> dict[str, Any]:
    """As JSON has them."""
    fields = {"purpose": str(purpose), "about": about, "condition": condition and str(condition)}
    return {name: value for name, value in fields.items() if value is not None}
