"""Converts what earlier versions of the harness stored into the form of this version: deployments and journal entries.

This is the only module that derives a meaning from names and texts: earlier versions recorded it nowhere else.
"""

from typing import Any

from harness.history import Ending, Outcome
from harness.scenario import Condition, Purpose, Route
from harness.store.readers import MalformedError

# --- the deployment, before each server had its own facts ---

_OF_SERVERS = ("connectors", "offload_block_size", "offload_blocks", "offload_bytes", "offload_prompt_only", "kv_dtype")
"""Fields that the deployment had in earlier versions, for all servers, and that each server has now."""


def convert_deployment(content: object) -> object:
    """A stored deployment's JSON in the form of this version; JSON of any other shape is returned unchanged.

    The deployment's values, read from its first server, become those of each server without values of its own. The
    chunk size was stored in tokens of the first server's blocks; every server gets as many blocks per chunk.
    """
    if not isinstance(content, dict) or not isinstance(content.get("servers"), list):
        return content
    # Stored beside ``vocab_is_whole``, which says the same.
    content = {name: value for name, value in content.items() if name != "special_tokens_guessed"}
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


# --- journal entries ---


def convert_kind(kind: object) -> object:
    """The name that this version has for a kind of journal entry."""
    return "decoding" if kind == "end_tokens" else kind


def convert_entry(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A journal entry's JSON in the form of this version; an entry that has it already is returned unchanged."""
    match kind:
        case "sent":
            return _with_purpose(entry)
        case "ended" if "ending" not in entry:
            return entry | _ending(entry)
        case "run_ended" if isinstance(died := entry.get("died"), list):
            return entry | {"died": [_dead_process(one) for one in died]}
        case "decoding" if "token_ids" in entry:
            return _decoding(entry)
        # The first version measured the longest delay alone.
        case "client_health" if "worst_loop_lag" in entry and "mean_loop_lag" not in entry:
            return entry | {"mean_loop_lag": None, "cpu_share": None}
        case _:
            return entry


def _dead_process(died: object) -> object:
    """Earlier versions stored the text alone, which begins with the process's name."""
    return {"name": died.partition(" ")[0], "text": died} if isinstance(died, str) else died


def _decoding(entry: dict[str, Any]) -> dict[str, Any]:
    """An ``end_tokens`` entry. It does not say whether its tokens were all that end an answer."""
    kept = {name: value for name, value in entry.items() if name != "token_ids"}
    return kept | {"end_token_ids": entry["token_ids"], "ends_complete": False}


_CAUSES = (
    ("no end of the answer within ", Ending.TIMED_OUT),
    ("cut: ", Ending.CUT),
    ("error inside a 200", Ending.ERROR_INSIDE),
    ("not sent: Cannot connect ", Ending.NOT_CONNECTED),
    ("not sent: ", Ending.NOT_SENT),
    ("the client crashed: ", Ending.CLIENT_CRASHED),
    ("interrupted", Ending.INTERRUPTED),
    ("the history holds no end", Ending.NO_END),
)
"""How causes begin in versions without ``Ended.ending``."""


def _ending(entry: dict[str, Any]) -> dict[str, str]:
    cause = str(entry.get("cause", ""))
    if entry.get("outcome") == str(Outcome.OK) or entry.get("status") not in (None, 200):
        return {}
    return next(({"ending": str(ending)} for beginning, ending in _CAUSES if cause.startswith(beginning)), {})


# --- requests, before they had a purpose ---

_KINDS = {"probe": Purpose.PROBE, "retry": Purpose.RETRY, "reset": Purpose.RESET, "salt": Purpose.SALT_TEST}
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


def _with_purpose(entry: dict[str, Any]) -> dict[str, Any]:
    """A ``sent`` entry whose request has a purpose.

    In earlier versions only the phase's name shows which cache a probe tests, and whether a control is of a suspect.
    """
    request = entry.get("request")
    if not isinstance(request, dict) or not {"reference_for", "inquiry"} & request.keys():
        return entry
    plain = {name: value for name, value in request.items() if name not in ("reference_for", "inquiry")}
    phase = entry.get("phase") if isinstance(entry.get("phase"), str) else ""
    return {**entry, "request": {**plain, **_purpose(request, str(phase))}}


def _purpose(request: dict[str, Any], phase: str) -> dict[str, Any]:
    about, inquiry = request.get("reference_for"), request.get("inquiry")
    sampling = request.get("sampling")
    forced = isinstance(sampling, dict) and sampling.get("prompt_logprobs") is not None
    if isinstance(inquiry, dict):
        return _purpose_of_inquiry(inquiry, phase, forced=forced)
    if forced:
        return _fields(Purpose.FORCING, about)
    if request.get("route") != str(Route.DECODE):
        return _fields(Purpose.REFERENCE, about)
    return _fields(Purpose.CONTROL, about, Condition.SUSPECT if phase.startswith("confirmation") else None)


def _purpose_of_inquiry(inquiry: dict[str, Any], phase: str, *, forced: bool) -> dict[str, Any]:
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
    """The fields of a request as JSON, without fields at their default."""
    fields = {"purpose": str(purpose), "about": about, "condition": condition and str(condition)}
    return {name: value for name, value in fields.items() if value is not None}
