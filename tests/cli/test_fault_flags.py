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


ATTACHED = ("--prefill-url", "http://p:1", "--decode-url", "http://d:1")
FOREIGN = (*ATTACHED, "--base-url", "http://proxy:1")


@pytest.mark.parametrize("fault", ["kill", "pause:server=decode-0", "drain:server=prefill-0", "lease"])
@pytest.mark.parametrize("where", [ATTACHED, FOREIGN])
def test_processes_that_the_harness_did_not_start_are_not_touched(fault: str, where: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="needs a process that the harness started: leave out --prefill-url"):
        parse([*where, "--fault", fault])


def test_the_proxy_of_attached_servers_is_the_harnesss_own_unless_a_url_names_one() -> None:
    assert parse([*ATTACHED, "--fault", "pause:server=proxy"]).faults
    with pytest.raises(UsageError, match="leave out --base-url"):
        parse([*FOREIGN, "--fault", "pause:server=proxy"])


def test_the_side_channel_of_attached_servers_cannot_be_relayed() -> None:
    with pytest.raises(UsageError, match="side channel"):
        parse([*ATTACHED, "--fault", "link:link=side-channel"])


def test_links_of_another_proxy_cannot_be_relayed() -> None:
    assert parse([*ATTACHED, "--fault", "link:link=prefill-0"]).faults
    with pytest.raises(UsageError, match="leave out --base-url"):
        parse([*FOREIGN, "--fault", "link:link=prefill-0"])
    assert parse([*FOREIGN, "--fault", "metrics:server=decode-0", "--fault", "cancel"]).faults


@pytest.mark.parametrize(
    "fault", ["pause:server=decode-1", "link:link=decode-1", "metrics:server=decode-1", "kill:server=x"]
)
def test_what_does_not_exist_is_refused_before_anything_is_started(fault: str) -> None:
    with pytest.raises(UsageError, match=r"there is no .*; there are prefill-0, decode-0"):
        parse(["--engine", "sim", "--fault", fault])


def test_a_deployment_of_several_servers_has_them_all() -> None:
    assert parse(["--engine", "sim", "--decode", "2", "--fault", "kill:server=decode-1"]).faults
    assert parse(["--engine", "sim", "--fault", "link:link=side-channel"]).faults


def test_a_ready_pair_is_refused_as_its_fault_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens at these addresses: it is refused before they are asked."""
    attached = ["--prefill-url", "http://127.0.0.1:9", "--decode-url", "http://127.0.0.1:9"]
    assert main([*attached, "--workload", "prefix_killed_prefill", "--plain"]) == 2
    assert "it needs a process that the harness started" in capsys.readouterr().err
