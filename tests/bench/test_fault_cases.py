"""The cases of bench.faults: every kind of fault has one, each runs where it belongs, and pairs are shared."""

import pytest

from bench.fault_cases import GROUPS, Group, chosen, pairs
from harness.catalogue.choice import catalogue
from harness.catalogue.presets import PRESETS
from harness.errors import UsageError
from harness.faults import KINDS, USUAL, parse_fault
from harness.faults.drain import Drain
from harness.faults.link import SIDE_CHANNEL
from harness.faults.metrics import Metrics
from harness.faults.metrics_spoiled import Spoiling
from harness.faults.relay_manner import How

CASES = [(group, case) for group in GROUPS.values() for case in group.cases]
PLANS = [parse_fault(text) for _, case in CASES for text in case.faults]
WORKLOADS = {entry.name: entry for entry in catalogue()}


def test_every_kind_and_every_usual_fault_has_a_case() -> None:
    assert {plan.fault.kind for plan in PLANS} == set(KINDS)
    assert set(USUAL) <= {text for _, case in CASES for text in case.faults}


def test_every_part_is_drained_every_link_disturbed_in_each_way_and_metrics_are_spoiled_in_each() -> None:
    faults = [plan.fault for plan in PLANS]
    assert {one.target for one in faults if isinstance(one, Drain)} == {"prefill-0", "decode-0", "proxy"}
    assert {getattr(one, "how", "") for one in faults if one.kind == "link"} == {*How} - {How.PASS}
    assert {one.how for one in faults if isinstance(one, Metrics)} == {*Spoiling} - {Spoiling.NOTHING}


def test_every_workload_of_parameters_has_a_case_and_each_case_has_the_deployment_of_its_workload() -> None:
    given = {case.workload: group for group, case in CASES if case.workload}
    assert {name for name, entry in WORKLOADS.items() if entry.family == "parameters"} <= set(given)
    assert {name: group.preset.name for name, group in given.items()} == {name: WORKLOADS[name].home for name in given}


def test_what_the_engine_is_known_to_get_wrong_in_a_workload_can_be_seen_by_anybody() -> None:
    known = {case.workload for _, case in CASES if case.workload and WORKLOADS[case.workload].known_fault}
    assert known == {case.workload for _, case in CASES if case.workload and case.shortfall}
    assert all(case.shortfall.reproducer for _, case in CASES if case.shortfall)


def test_no_two_cases_of_a_group_have_the_same_row() -> None:
    keys = [(group.name, case.text) for group, case in CASES]
    assert len(keys) == len(set(keys))


def test_groups_with_one_deployment_share_a_pair_with_the_relays_of_all() -> None:
    (pair,) = pairs([GROUPS["usual"], GROUPS["metrics"], GROUPS["failed-loads"]])
    assert {"decode-0", "prefill-0", "metrics-decode-0"} <= set(pair.relays)
    assert [name for name, _ in pair.cases] == ["usual"] * 16 + ["metrics"] * 5 + ["failed-loads"]


@pytest.mark.parametrize("other", ["recomputed-loads", "leases", "peer-refused"])
def test_another_policy_preset_or_a_first_handshake_needs_a_pair_of_its_own(other: str) -> None:
    assert len(pairs([GROUPS["usual"], GROUPS[other]])) == 2


def test_only_pairs_that_are_meant_to_be_cold_have_a_relay_before_the_side_channel() -> None:
    """The harness sends such a pair no first requests, so that every other group would begin on it without them."""
    for group in GROUPS.values():
        assert group.cold is (SIDE_CHANNEL in group.relays), group.name


def test_all_groups_are_chosen_without_a_name_and_an_unknown_name_is_an_error() -> None:
    assert chosen([]) == list(GROUPS.values())
    assert chosen(["tiers"]) == [GROUPS["tiers"]]
    with pytest.raises(UsageError, match="there are usual"):
        chosen(["nothing"])


def test_a_case_says_what_is_done_and_what_is_unusual() -> None:
    group = Group(name="one", summary="", cases=GROUPS["leases"].cases, preset=PRESETS["short_lease"])
    assert [case.text for case in group.cases] == [
        "`lease:server=decode-0`, leases of 3 s",
        "`--workload queue_past_lease`, leases of 3 s",
    ]
