"""The figures of the comparison with other load generators, and how these are asked."""

import math
from pathlib import Path

import pytest

from bench.peer_tools import OURS, Load, peers
from bench.peers import Cost, Round, table
from bench.stamps import Shape

_SMALL, _LARGE = Cost(200, 0.1, 3.0, 0.1), Cost(2200, 1.0, 5.0, 0.5)


def test_starting_costs_nothing_per_stream() -> None:
    assert Round(_LARGE, _SMALL).per_cpu == pytest.approx(1000)
    assert Round(_LARGE, _SMALL).whole == pytest.approx(440)
    assert Round(_LARGE, None).per_cpu == pytest.approx(440)


def test_a_start_that_varies_by_more_than_the_streams_cost_gives_no_figure() -> None:
    assert math.isnan(Round(_LARGE, Cost(200, 0.1, 5.5, 0.1)).per_cpu)


def test_the_ratio_is_of_streams_per_cpu_second() -> None:
    slower = Round(Cost(2200, 0.5, 7.0, 0.5), _SMALL)
    rows = list(table({OURS: [Round(_LARGE, _SMALL)], "other": [slower]}))
    assert rows[2].split()[-1] == "2.00"


def test_what_is_not_there_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "aiperf").touch()
    found, missing = peers({"aiperf": tmp_path / "aiperf", "wrk": tmp_path / "wrk"})
    assert "AIPerf" in [tool.name for tool in found]
    assert {"GuideLLM", "wrk (decodes nothing)"}.isdisjoint(tool.name for tool in found)
    assert any(f"{tmp_path / 'wrk'} is no file" in line for line in missing)
    assert any("no --guidellm" in line for line in missing)


def test_every_tool_is_asked_for_the_same_load(tmp_path: Path) -> None:
    names = ("guidellm", "aiperf")
    for name in names:
        (tmp_path / name).touch()
    found, _ = peers({name: tmp_path / name for name in names})
    load = Load("http://stub", ("http://p", "http://d"), tmp_path, tmp_path, Shape(128, 16), 777, 55, 12.5)
    for tool in found:
        open_loop = " ".join(tool.command(load))
        assert "777" in open_loop
        assert "12.5" in open_loop
        assert "http://stub" in open_loop
