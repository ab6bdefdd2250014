"""The table of reported failures in the docs names workloads and faults that there are, and lacks none."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from workload_settings import SETTING

from harness.catalogue.choice import catalogue
from harness.catalogue.registry import Workload
from harness.faults import parse_fault
from harness.scenario import Altered, Request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/faults/reported.md").read_text()
HEAD = "| reported | where | brought about by |\n"
FAULT = "--fault "
SENT_NOWHERE = {Altered.NO_BLOCKS, Altered.NULL_BLOCKS, Altered.TEXT_BLOCKS}
"""Further forms of a reference without a list of blocks: ``NO_GROUPS`` stands for them, since each needs a pair of its
own if it ends the server."""


def rows() -> Iterator[list[str]]:
    table = PAGE.partition(HEAD)[2].partition("\n\n")[0]
    for line in table.splitlines()[1:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


ROWS = list(rows())
BY = {one for _, _, by in ROWS for one in re.findall("`([^`]*)`", by)}
WORKLOADS = {one.name: one for one in catalogue()}
NEEDED = (
    *("unknown_names", "malformed_references", "used_again", "used_after_reuse", "kept_past_lease"),
    *("truncated_reference", "empty_reference", "nameless_reference", "queue_past_lease"),
    *(f"--fault cancel:share={share},moment={moment}" for share in (0.1, 0.5) for moment in ("transfer", "stream")),
    *("--fault kill:server=prefill-0,when=transferring", "--fault lease"),
    *(f"--fault pause:server={one}" for one in ("prefill-0", "decode-0")),
    *("--fault link:link=prefill-0,how=delay", "--fault link:link=decode-0,how=cut"),
    *(f"--fault link:link=side-channel,how={how}" for how in ("delay", "cut")),
)
"""What HTTP, signals and links alone can do to a pair, by the public reports."""


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_row_names_reports_and_what_there_is_to_bring_them_about(row: list[str]) -> None:
    _, where, by = row
    assert re.fullmatch(r"(?:[\w-]+ )?\d+(?:, (?:[\w-]+ )?\d+)*", where)
    named = re.findall("`([^`]*)`", by)
    assert ", ".join(f"`{one}`" for one in named) == by
    for one in named:
        if one.startswith(FAULT):
            parse_fault(one.removeprefix(FAULT))
        else:
            assert one in WORKLOADS


def test_nothing_that_was_reported_is_missing() -> None:
    assert set(NEEDED) <= BY


def test_every_workload_with_a_bad_reference_is_in_the_table() -> None:
    family = {name for name, one in WORKLOADS.items() if one.family == "parameters"}
    assert family - BY == {"given_reference"}


def requests(entry: Workload) -> Iterator[Request]:
    return (one for phase in entry(SETTING).phases for one in phase.requests)


@pytest.mark.parametrize("way", sorted(set(Altered) - SENT_NOWHERE))
def test_every_way_to_alter_a_reference_is_in_a_workload(way: Altered) -> None:
    sent = (one for entry in WORKLOADS.values() if entry.family == "parameters" for one in requests(entry))
    assert way in {one.altered for one in sent}
