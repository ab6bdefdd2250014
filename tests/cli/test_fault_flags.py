"""Which flags faults go with, and where they are refused because they would decide what is measured."""

import pytest

from harness.cli.main import main
from harness.cli.options import parse
from harness.errors import UsageError

FAULTS = (["--fault", "pause"], ["--faults", "3", "--duration-sec", "10"])


@pytest.mark.parametrize("faults", FAULTS)
def test_a_sweep_is_without_faults_and_says_why(faults: list[str]) -> None:
    with pytest.raises(UsageError, match="a fault in each rate's run would decide that instead"):
        parse(["--engine", "sim", *faults, "--sweep", "1,2"])
    assert main(["--engine", "sim", *faults, "--sweep", "1,2"]) == 2


def test_random_faults_are_for_loads_of_known_length() -> None:
    with pytest.raises(UsageError, match="with --fault, or leave out --workload"):
        parse(["--engine", "sim", *FAULTS[1], "--workload", "cold_decode"])


@pytest.mark.parametrize("what", [[], ["--workload", "cold_decode", "--workload", "hits"]])
def test_a_load_or_any_workloads_have_the_faults_of_the_flags(what: list[str]) -> None:
    plans = parse(["--engine", "sim", "--fault", "pause:server=proxy,after=2", "--fault", "kill", *what]).faults
    assert [plan.fault.kind for plan in plans] == ["pause", "kill"]
    assert parse(["--engine", "sim"]).faults == ()
