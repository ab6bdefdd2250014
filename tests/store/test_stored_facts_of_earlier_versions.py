"""A run stored when the deployment had one set of facts for all its servers can still be judged."""

import json
from pathlib import Path
from typing import Any

from run_fixtures import entries

from harness.facts import Connector, Deployment, Server
from harness.store.rundir import DEPLOYMENT, HISTORY, RunStore, load_run

EARLIER: dict[str, Any] = {
    "servers": [
        {"name": "prefill-0", "role": "prefill", "url": "http://p", "block_size": 16},
        {"name": "decode-0", "role": "decode", "url": "http://d", "block_size": 32},
    ],
    "proxy_url": "http://proxy",
    "model": "canary",
    "kv_dtype": "float32",
    "connectors": ["offloading", "nixl"],
    "offload_block_size": 48,
    "offload_blocks": 7,
    "offload_bytes": 1024,
    "offload_prompt_only": False,
    "launched": True,
}


def stored(tmp_path: Path, content: object) -> Deployment:
    with RunStore.create(tmp_path) as store:
        for entry in entries():
            store.record(entry)
    assert (store.path / HISTORY).is_file()
    (store.path / DEPLOYMENT).write_text(json.dumps(content))
    deployment, _ = load_run(store.path)
    return deployment


def test_what_was_the_deployments_is_given_to_every_server(tmp_path: Path) -> None:
    deployment = stored(tmp_path, EARLIER)
    for server in deployment.servers:
        assert server.connectors == (Connector.OFFLOADING, Connector.NIXL)
        assert (server.offload_blocks, server.offload_bytes, server.offload_prompt_only) == (7, 1024, False)
        assert server.kv_dtype == "float32"
    assert (deployment.model, deployment.launched) == ("canary", True)


def test_a_chunk_is_as_many_blocks_on_every_server(tmp_path: Path) -> None:
    assert [server.offload_block_size for server in stored(tmp_path, EARLIER).servers] == [48, 96]


def test_facts_stored_today_come_back_as_they_were(tmp_path: Path) -> None:
    content = {
        "servers": [{"name": "prefill-0", "role": "prefill", "url": "http://p", "connectors": ["nixl"]}],
        "proxy_url": None,
        "model": "m",
    }
    (server,) = stored(tmp_path, content).servers
    assert isinstance(server, Server)
    assert (server.connectors, server.offload_blocks) == ((Connector.NIXL,), None)
