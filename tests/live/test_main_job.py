"""The main job on real vLLM: what it must say of a sound pair, and of one where nothing is transferred."""

import json
from pathlib import Path

import pytest
from command_line import Ran, Served, run_harness

pytestmark = pytest.mark.live

LAYERS, KV_HEADS, HEAD_SIZE, FLOAT32, BLOCK = 4, 4, 64, 4, 32
BLOCK_BYTES = LAYERS * BLOCK * KV_HEADS * (HEAD_SIZE + HEAD_SIZE) * FLOAT32
"""Of the canary, written down from its description and not read from its configuration."""


@pytest.fixture(scope="module")
def ran(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_harness(
        tmp_path_factory.mktemp("runs"), "--concurrency", "32", "--num-prompts", "128", "--seed", "7", *served.attach()
    )


def _prompt_lengths(ran: Ran) -> list[int]:
    """From what was sent, not from what anybody counted."""
    lines = (ran.directory / "history.jsonl").read_text().splitlines()
    sent = [entry for entry in map(json.loads, lines) if entry["kind"] == "sent" and entry["phase"] == "load"]
    return [len(entry["request"]["prompt"]) for entry in sent]


def test_a_sound_pair_is_valid(ran: Ran) -> None:
    assert ran.status == 0, ran.output + ran.errors
    assert ran.result["verdict"] == "valid"
    assert {check["name"]: check["verdict"] for check in ran.result["checks"]}["outputs"] == "valid"
    assert ran.output.startswith("VALID")


def test_decode_took_every_prompt_token_by_transfer(ran: Ran) -> None:
    total = sum(_prompt_lengths(ran))
    assert ran.result["kv_transfer"]["decode"] == {
        "local_compute": 0,
        "local_cache_hit": 0,
        "external_kv_transfer": total,
    }
    assert ran.result["kv_transfer"]["prefill"]["local_compute"] == total


def test_every_block_of_every_prompt_moved_once(ran: Ran) -> None:
    blocks = sum(-(-length // BLOCK) for length in _prompt_lengths(ran))
    assert ran.result["kv_transfer"]["nixl_bytes"]["observed"] == blocks * BLOCK_BYTES
    assert ran.result["kv_transfer"]["nixl_bytes"]["expected"] == blocks * BLOCK_BYTES


def test_whole_blocks_were_offloaded_on_both_servers(ran: Ran) -> None:
    blocks = sum(length // BLOCK for length in _prompt_lengths(ran))
    assert ran.result["kv_transfer"]["offload_bytes"]["store"]["observed"] == 2 * blocks * BLOCK_BYTES


def test_every_output_was_compared(ran: Ran) -> None:
    outputs = ran.result["outputs"]
    assert (outputs["requests"], outputs["mismatch"], outputs["unverified"]) == (128, 0, 0)
    assert outputs["exact"] + outputs["tie"] == 128


def test_a_decode_server_asked_directly_is_invalid_since_nothing_was_transferred(
    served: Served, tmp_path: Path
) -> None:
    direct = served.attach(base_url=served.facts["decode_urls"][0])
    ran = run_harness(tmp_path, "--num-prompts", "16", "--concurrency", "8", "--seed", "8", *direct)
    assert ran.status == 1, ran.output + ran.errors
    assert ran.result["verdict"] == "invalid"
    assert ran.result["kv_transfer"]["decode"]["external_kv_transfer"] == 0
    assert "nothing was transferred" in ran.output
