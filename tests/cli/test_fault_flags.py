"""Faults are refused where they would silently not be caused."""

import pytest

from harness.cli.options import parse
from harness.errors import UsageError

FAULTS = (["--fault", "pause"], ["--faults", "3", "--duration-sec", "10"])


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("other", [["--workload", "cold_decode"], ["--sweep", "1,2"]])
def test_faults_are_for_plain_loads(faults: list[str], other: list[str]) -> None:
    with pytest.raises(UsageError, match=f"or {other[0]}"):
        parse(["--engine", "sim", *faults, *other])


def test_a_plain_load_has_the_faults_of_its_flags() -> None:
    plans = parse(["--engine", "sim", "--fault", "pause:server=proxy,after=2", "--fault", "kill"]).faults
    assert [plan.fault.kind for plan in plans] == ["pause", "kill"]
    assert parse(["--engine", "sim"]).faults == ()
