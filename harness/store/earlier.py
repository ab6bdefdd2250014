"""Facts that an earlier version of the harness stored, in the form of this one.

Until each server had its own facts, the deployment had those of the first server, for all of them: connectors, the
offload tier's configuration and the type of the KV cache. They are given to every server that has none of its own. A
chunk was stored in the first server's tokens, and is as many blocks on each.
"""

from typing import Any

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
