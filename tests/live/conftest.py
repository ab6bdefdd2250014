"""One real pair, launched once, for all live tests."""

from collections.abc import Iterator

import pytest
from command_line import Served
from live_faults import RELAYS

import harness
from harness.cli.serve import facts


@pytest.fixture(scope="session")
def pair() -> Iterator[harness.RunningDeployment]:
    """The shared pair, with the relays that faults need; ended, with everything it started, when the session ends."""
    # Some faults leave blocks to their leases, whose end is waited for: 30 s each with the engine's own.
    with harness.launch(relays=RELAYS, nixl_config={"kv_lease_duration": 10}) as running:
        yield running


@pytest.fixture(scope="session")
def served(pair: harness.RunningDeployment) -> Served:
    """The shared pair as ``python -m harness serve`` describes one: other processes attach to it by its addresses."""
    return Served(facts(pair.facts))
