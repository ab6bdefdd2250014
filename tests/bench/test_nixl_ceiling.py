"""What is read from a stored run, and which blocks are read in its place. Needs no NIXL."""

import random
from itertools import pairwise

import pytest

from bench.nixl_agent import Layout
from bench.nixl_ceiling import chosen, layout_of, reached_in
from harness.facts import Deployment, KVGeometry, Role, Server
from harness.history import History, Sample, Scraped

_DECODE = Server("decode-0", Role.DECODE, "http://d", block_size=32, num_blocks=768)
_GEOMETRY = KVGeometry(layers=4, kv_heads=4, head_size=64, head_size_v=64, dtype_bytes=4)
_DEPLOYMENT = Deployment((Server("prefill-0", Role.PREFILL, "http://p"), _DECODE), None, "m", geometry=_GEOMETRY)


def _scraped(server: str, transfers: float, *, seconds: bool = True) -> Scraped:
    values = {
        "vllm:nixl_bytes_transferred_count": transfers,
        "vllm:nixl_bytes_transferred_sum": 1000 * transfers,
        "vllm:nixl_num_descriptors_sum": 8 * transfers,
        **({"vllm:nixl_xfer_time_seconds_sum": 0.5 * transfers} if seconds else {}),
    }
    samples = tuple(Sample(name, {}, value) for name, value in values.items())
    return Scraped(1.0, server, "after", "s", "p", samples)


def test_a_run_is_read_from_the_last_reading_of_its_decode_servers() -> None:
    history = History((_scraped("decode-0", 3), _scraped("prefill-0", 99), _scraped("decode-0", 5)))
    reached = reached_in(_DEPLOYMENT, history)
    assert (reached.transfers, reached.bytes, reached.descriptors, reached.seconds) == (5, 5000, 40, 2.5)


def test_a_run_that_did_not_keep_durations_has_none() -> None:
    assert reached_in(_DEPLOYMENT, History((_scraped("decode-0", 5, seconds=False),))).seconds is None


def test_a_run_without_transfers_is_refused() -> None:
    with pytest.raises(SystemExit, match="read nothing through NIXL"):
        reached_in(_DEPLOYMENT, History((_scraped("decode-0", 0),)))


def test_a_descriptor_is_a_block_of_one_layer() -> None:
    assert layout_of(_DEPLOYMENT) == Layout(4, 768, 65_536)


@pytest.mark.parametrize("scattered", [False, True])
def test_blocks_of_a_transfer_are_in_the_pool_and_lie_as_they_should(scattered: bool) -> None:
    rng = random.Random(0)  # noqa: S311
    for _ in range(200):
        blocks = sorted(chosen(rng, 32, 15, scattered=scattered))
        assert blocks[0] > 0
        assert blocks[-1] < 32
        steps = {after - before for before, after in pairwise(blocks)}
        assert (min(steps) > 1) if scattered else (steps == {1})
