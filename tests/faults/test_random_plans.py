"""Faults at random moments: drawn from what a deployment offers, by the seed alone."""

from collections import Counter

import pytest

from harness.cli.options import parse
from harness.errors import UsageError
from harness.faults import parse_fault, random_faults
from harness.faults.turns import Alone

_SERVERS = ("prefill-0", "decode-0")


def test_the_seed_decides_everything() -> None:
    assert random_faults(24, 600, 1, _SERVERS) == random_faults(24, 600, 1, _SERVERS)
    assert random_faults(24, 600, 1, _SERVERS) != random_faults(24, 600, 2, _SERVERS)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_of_ten_minutes_has_all_parts_and_few_restarts(seed: int) -> None:
    plans = [parse_fault(text) for text in random_faults(24, 600, seed, _SERVERS)]
    kinds = Counter(plan.fault.kind for plan in plans)
    assert len(plans) == 24
    assert kinds["kill"] + kinds["drain"] == 4
    assert {plan.fault.target for plan in plans} == {*_SERVERS, "proxy"}
    assert all(0 <= plan.after <= 540 and 0 < plan.seconds <= 4 for plan in plans)
    assert all(plan.alone is not None for plan in plans)
    assert {plan.alone for plan in plans if plan.fault.kind == "link"} == {Alone.ALL}


def test_servers_that_the_harness_did_not_start_get_faults_on_links_alone() -> None:
    kinds = {parse_fault(text).fault.kind for text in random_faults(24, 60, 0, _SERVERS, launched=False)}
    assert kinds == {"link"}


def test_the_flag_draws_them_for_the_deployment_of_the_command_line() -> None:
    options = parse(["--engine", "sim", "--decode", "2", "--faults", "30", "--duration-sec", "60"])
    assert {"decode-1", "proxy"} <= {plan.fault.target for plan in options.faults}
    assert options.target.separate_processes
    assert options.load.seconds == 60
    assert options.load.num_prompts == 6000


def test_without_a_length_of_the_load_there_are_no_moments() -> None:
    with pytest.raises(UsageError, match="add --duration-sec S"):
        parse(["--faults", "3"])
