"""How long a deployment may take to recover follows from the longest lease of its prefill servers."""

import pytest
from counted_run import DEPLOYMENT

from harness.facts import Connector
from harness.faults.recovery import recovery_s


@pytest.mark.parametrize(("lease", "seconds"), [(5.0, 60), (30.0, 60), (90.0, 120), (480.0, 510), (None, 510)])
def test_the_longest_lease_and_half_a_minute(lease: float | None, seconds: float) -> None:
    assert recovery_s(DEPLOYMENT.with_servers(lease=lease)) == seconds


def test_servers_without_nixl_hold_no_blocks_for_others() -> None:
    assert recovery_s(DEPLOYMENT.with_servers(lease=None, connectors=(Connector.OFFLOADING,))) == 60
