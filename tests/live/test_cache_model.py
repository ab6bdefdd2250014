"""The cache model on real vLLM: a random sequence of requests that meet in the caches, and not one counter wrong."""

import os

import pytest
from cache_comparison import compare, learn
from command_line import Served

pytestmark = pytest.mark.live

REQUESTS = int(os.environ.get("CACHE_MODEL_REQUESTS", "120"))
SEED = int(os.environ.get("CACHE_MODEL_SEED", "1"))


async def test_every_counter_is_as_the_model_says(served: Served) -> None:
    compared = await compare(await learn(served.facts), seed=SEED, requests=REQUESTS)
    assert compared.unsettled == 0
    assert not compared.wrong, compared.table()
    # Overlap leaves some open; that most are exact keeps the comparison from being empty.
    assert compared.exact > len(compared.comparisons) / 2, compared.table()
