"""Runs that earlier versions stored are converted: facts, requests, and dead processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import entries

from harness.facts import Connector, Deployment, Server
from harness.history import DeadProcess, RunEnded, Sent
from harness.scenario import Condition, Purpose, Request
from harness.store.journal import decode_entry
from harness.store.readers import MalformedError
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


def test_facts_of_the_deployment_are_given_to_every_server(tmp_path: Path) -> None:
    deployment = stored(tmp_path, EARLIER)
    for server in deployment.servers:
        assert server.connectors == (Connector.OFFLOADING, Connector.NIXL)
        assert (server.offload_blocks, server.offload_bytes, server.offload_prompt_only) == (7, 1024, False)
        assert server.kv_dtype == "float32"
    assert (deployment.model, deployment.launched) == ("canary", True)


def test_a_chunk_has_as_many_blocks_on_every_server(tmp_path: Path) -> None:
    assert [server.offload_block_size for server in stored(tmp_path, EARLIER).servers] == [48, 96]


def test_facts_of_this_version_are_read_back_unchanged(tmp_path: Path) -> None:
    content = {
        "servers": [{"name": "prefill-0", "role": "prefill", "url": "http://p", "connectors": ["nixl"]}],
        "proxy_url": None,
        "model": "m",
    }
    (server,) = stored(tmp_path, content).servers
    assert isinstance(server, Server)
    assert (server.connectors, server.offload_blocks) == ((Connector.NIXL,), None)


def decoded(request: dict[str, Any], phase: str = "teacher") -> Request:
    """The request of an entry that a version without purposes wrote."""
    plain = {"request_id": "x", "prompt": [1, 2]}
    entry = {"kind": "sent", "at": 1.0, "request": plain | request, "scenario": "s", "phase": phase, "intended_at": 1.0}
    sent = decode_entry(json.dumps(entry))
    assert isinstance(sent, Sent)
    return sent.request


PROBED = {"inquiry": {"kind": "probe", "about": "a"}}
OWNER_TESTED = {"inquiry": {"kind": "supposition", "about": "a", "under": "b"}}
FORCED = {"reference_for": "a", "route": "prefill", "sampling": {"max_tokens": 1, "prompt_logprobs": 2}}


@pytest.mark.parametrize(
    ("request_", "phase", "purpose", "condition", "owner"),
    [
        ({}, "load", Purpose.LOAD, None, None),
        (FORCED, "teacher", Purpose.FORCING, None, None),
        ({"reference_for": "a", "route": "prefill"}, "reference", Purpose.REFERENCE, None, None),
        ({"reference_for": "a", "route": "decode"}, "control", Purpose.CONTROL, None, None),
        ({"reference_for": "a", "route": "decode"}, "confirmation", Purpose.CONTROL, Condition.SUSPECT, None),
        (PROBED, "probe-decode", Purpose.PROBE, Condition.PREFIX_CACHE, None),
        (PROBED, "probe-prefill-tier", Purpose.PROBE, Condition.OFFLOAD_TIER, None),
        (OWNER_TESTED, "owners", Purpose.OWNER_TEST, None, "b"),
        (FORCED | OWNER_TESTED, "owners", Purpose.FORCING, None, "b"),
        (
            {"inquiry": {"kind": "retry", "about": "a", "under": "together"}},
            "retry-together",
            Purpose.RETRY,
            Condition.UNDER_LOAD,
            None,
        ),
        ({"inquiry": {"kind": "reset"}}, "reset", Purpose.RESET, None, None),
        (
            {"inquiry": {"kind": "salt", "under": "path-other"}},
            "salts-path-other",
            Purpose.SALT_TEST,
            Condition.SALT_PROXY_OTHER,
            None,
        ),
    ],
)
def test_a_requests_purpose_is_derived_from_old_fields_and_names(
    request_: dict[str, Any], phase: str, purpose: Purpose, condition: Condition | None, owner: str | None
) -> None:
    request = decoded(request_, phase)
    assert (request.purpose, request.condition, request.owner) == (purpose, condition, owner)
    without_subject = (Purpose.LOAD, Purpose.RESET, Purpose.SALT_TEST)
    assert request.about == (None if purpose in without_subject else "a")


@pytest.mark.parametrize("odd", [{"inquiry": {"kind": "other"}}, {"inquiry": {}}, {"inquiry": {"kind": ["probe"]}}])
def test_an_inquiry_of_unknown_kind_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        decoded(odd)


def test_the_name_of_a_process_that_died_is_the_first_word_of_its_text() -> None:
    line = json.dumps({"kind": "run_ended", "at": 1.0, "died": ["prefill-0 ended with status 137"]})
    assert decode_entry(line) == RunEnded(1.0, died=(DeadProcess("prefill-0", "prefill-0 ended with status 137"),))
