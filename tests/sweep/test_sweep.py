"""The search for the knee, and how a sweep is shown."""

import csv
import io
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from harness.sweep import Point, Step, chart_lines, csv_text, headline, knee, point_line, search, svg, table_lines
from harness.verdict import Verdict

LIMITS = {"ttft": 200.0}


def tried(first: float, what: Callable[[float], Step]) -> list[float]:
    """The rates that a search tries."""
    rates, searching = [], search(first)
    try:
        rates.append(next(searching))
        while True:
            rates.append(searching.send(what(rates[-1])))
    except StopIteration:
        return rates


def below(limit: float) -> Callable[[float], Step]:
    return lambda rate: Step.KEEPS if rate <= limit else Step.FAILS


@pytest.mark.parametrize("limit", [0.3, 1.0, 3.3, 8.0, 37.0, 500.0])
def test_the_knee_is_found_within_ten_percent(limit: float) -> None:
    rates = tried(1.0, below(limit))
    found = max(rate for rate in rates if rate <= limit)
    assert found <= limit <= 1.11 * found
    assert len(rates) == len(set(rates)) <= 16


def test_rates_are_doubled_and_then_the_interval_is_halved() -> None:
    assert tried(1.0, below(5.9))[:5] == [1.0, 2.0, 4.0, 8.0, 5.66]


def test_rates_below_the_first_are_tried_if_that_is_too_high() -> None:
    assert tried(8.0, below(2.5))[:3] == [8.0, 4.0, 2.0]
    assert tried(8.0, below(0.0)) == [8.0 / 2**n for n in range(7)]


def test_a_search_that_never_fails_ends() -> None:
    rates = tried(1.0, below(1e99))
    assert rates == [float(2**n) for n in range(15)]


@pytest.mark.parametrize("at", [1.0, 4.0, 5.66])
def test_nothing_is_tried_after_a_stop(at: float) -> None:
    rates = tried(1.0, lambda rate: Step.STOP if rate == at else below(5.9)(rate))
    assert rates[-1] == at


def point(rate: float, share: float | None = 1.0, **fields: Any) -> Point:
    values: dict[str, Any] = {
        "rate": rate,
        "requests": 100,
        "throughput": rate,
        "output_throughput": rate * 20,
        "goodput": None if share is None else rate * share,
        "share": share,
        "p50_ttft": 20.0,
        "p99_ttft": 90.0,
        "p99_tpot": 8.0,
        "p99_e2el": 300.0,
        "verdict": Verdict.VALID,
        "directory": f"rate-{rate:g}",
        "client_kept_up": True,
    }
    return Point(**{**values, **fields})


def test_the_knee_is_the_highest_rate_below_which_all_keep_the_objectives() -> None:
    points = [point(8, 0.95), point(1), point(4, 0.5), point(2, 0.9)]
    best = knee(points, 0.9)
    assert best is not None
    assert best.rate == 2, "8 keeps them by chance: 4 does not"
    assert knee([point(1, 0.8)], 0.9) is None
    assert knee([point(1, None)], 0.9) is None


def test_the_table_has_a_line_for_each_rate_in_order_and_marks_the_knee() -> None:
    lines = list(table_lines([point(4, 0.5), point(1), point(2, verdict=Verdict.UNKNOWN)], 0.9))
    assert [line.split()[0] for line in lines] == ["rate/s", "1", "2", "4"]
    assert [line.endswith("<- knee") for line in lines] == [False, False, True, False]
    assert "unknown" in lines[2]
    assert "50%" in lines[3]


def test_what_a_sweep_found() -> None:
    assert "the knee is at 2 requests per second" in headline([point(2), point(4, 0.5)], LIMITS, 0.9)
    assert "no higher rate was tried" in headline([point(2)], LIMITS, 0.9)
    assert "at none of them at least 90% of the requests kept ttft:200" in headline([point(2, 0.1)], LIMITS, 0.9)
    assert "no knee" in headline([point(2, None)], {}, 0.9)
    slow = [point(2), point(4, 0.5, client_kept_up=False)]
    assert "at higher rates the client was too slow" in headline(slow, LIMITS, 0.9)
    assert point_line(point(2, None)).startswith("2 requests per second: valid; 2.00 completed per second, TTFT p99")


@pytest.mark.parametrize("width", [20, 60, 200])
def test_bars_are_as_long_as_the_rates(width: int) -> None:
    _, one, two, three = chart_lines([point(10, 0.5), point(20, throughput=15.0, goodput=3.0), point(40)], width)
    room = three.count("#")
    assert abs(one.count("#") - room / 8) <= 1
    assert abs(one.count("-") - room / 8) <= 1
    assert abs(two.count("#") - room * 3 / 40) <= 1
    assert abs(two.count("-") - room * 12 / 40) <= 1
    assert one.isascii()
    assert max(map(len, (one, two, three))) <= max(width, 34)


def test_csv_has_every_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text([point(4, None), point(1)]))))
    assert [row["rate"] for row in rows] == ["1", "4"]
    assert (rows[0]["share"], rows[1]["share"], rows[0]["verdict"]) == ("1.0", "", "valid")


@pytest.mark.parametrize(
    "points",
    [
        [point(1)],
        [point(1, None, p50_ttft=None, p99_ttft=None), point(2, None)],
        [point(n, 1 / n, p99_ttft=40.0**n) for n in (1, 2, 3, 4)],
    ],
)
@pytest.mark.parametrize("limits", [{}, LIMITS, {"tpot": 5.0}])
def test_the_picture_is_svg_whose_marks_lie_inside(points: list[Point], limits: dict[str, float]) -> None:
    root = ET.fromstring(svg(points, limits, 0.9, "a <title> & more"))  # noqa: S314 - our own text
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    circles = [mark for mark in root if mark.tag.endswith("circle")]
    assert len(circles) >= len(points)
    assert all(0 <= float(one.attrib["cx"]) <= width and 0 <= float(one.attrib["cy"]) <= height for one in circles)
    assert not any("href" in name for mark in root for name in mark.attrib), "it needs no other file"
