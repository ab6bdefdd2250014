"""Limits of a change: read from the command line, and kept, broken or neither."""

import math

import pytest
from made_stored_runs import output

from harness.compare.evidence import Sides, interval
from harness.compare.metrics import Family
from harness.compare.outputs import compare_outputs
from harness.compare.thresholds import Kept, Threshold, judge_limit, judge_outputs
from harness.errors import UsageError

SCATTER = (0.99, 1.0, 1.01, 1.005, 0.995)


def sides(change: float, scatter: float = 1.0, runs: int = 5) -> Sides:
    old = tuple(100 * one**scatter for one in SCATTER[:runs])
    return Sides(old, tuple(value * (1 + change) for value in old))


def kept(text: str, one: Sides) -> Kept:
    return judge_limit(Threshold.parse(text), one, Family.PRIMARY).kept


@pytest.mark.parametrize(
    ("text", "metric", "up", "amount", "relative"),
    [
        ("p99_ttft:+10%", "p99_ttft", True, 0.1, True),
        ("output_throughput:-5%", "output_throughput", False, 0.05, True),
        ("p99_itl:+2ms", "p99_itl", True, 2.0, False),
        ("mean_e2el:+0.5s", "mean_e2el", True, 500.0, False),
        ("mismatch:+0", "mismatch", True, 0.0, False),
        ("decode.local_compute:+1%", "decode.local_compute", True, 0.01, True),
    ],
)
def test_a_limit_is_read(text: str, metric: str, up: bool, amount: float, relative: bool) -> None:
    unit = text.rpartition(":")[2].lstrip("+-.0123456789")
    assert Threshold.parse(text) == Threshold(metric, up, pytest.approx(amount), relative, text, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99_ttft",
        "p99_ttft:10%",
        "p99_ttft:+x",
        "p99_ttft:+10%%",
        "a b:+1",
        ":+1",
        "p:+nan",
        "p99_ttft:+10 %",
        "p99_ttft: +1",
    ],
)
def test_a_limit_that_cannot_be_read_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"p99_ttft:\+10%"):
        Threshold.parse(text)


@pytest.mark.parametrize("text", ["output_throughput:-100%", "output_throughput:-150%"])
def test_a_limit_that_nothing_can_exceed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="can never be exceeded"):
        Threshold.parse(text)


def test_an_interval_beyond_all_floats_tells_nothing() -> None:
    wild = Sides((1.0, 1.0), (1e-9, 1e9))
    limit = judge_limit(Threshold.parse("nixl_bytes:+10%"), wild, Family.COUNTERS, 5)
    assert limit.kept is Kept.UNKNOWN


def test_only_evidence_breaks_a_limit_and_only_evidence_keeps_it() -> None:
    assert kept("p99_ttft:+10%", sides(0.15)) is Kept.BROKEN
    assert kept("p99_ttft:+10%", sides(0.05)) is Kept.KEPT
    assert kept("p99_ttft:+10%", sides(0.10)) is Kept.UNKNOWN
    assert kept("p99_ttft:+10%", sides(-0.5)) is Kept.KEPT
    assert kept("output_throughput:-5%", sides(-0.10)) is Kept.BROKEN
    assert kept("output_throughput:-5%", sides(-0.01)) is Kept.KEPT
    assert kept("output_throughput:-5%", sides(0.5)) is Kept.KEPT
    assert kept("p99_ttft:+10ms", sides(0.15)) is Kept.BROKEN
    assert kept("p99_ttft:+10ms", sides(0.05)) is Kept.KEPT


def test_the_wide_scatter_of_noisy_runs_decides_nothing() -> None:
    assert kept("p99_ttft:+10%", sides(0.15, scatter=20)) is Kept.UNKNOWN
    assert kept("p99_ttft:+10%", sides(0.05, scatter=20)) is Kept.UNKNOWN


def test_one_run_on_each_side_decides_no_limit_unless_nothing_differs() -> None:
    limit = judge_limit(Threshold.parse("p99_ttft:+10%"), Sides((100.0,), (300.0,), within=0.01), Family.PRIMARY)
    assert limit.kept is Kept.UNKNOWN
    assert limit.more_runs == 3
    assert kept("decode.local_compute:+0", Sides((5.0,), (5.0,))) is Kept.KEPT


def test_as_many_runs_as_are_named_would_have_told() -> None:
    """With so many runs of the same scatter and the same change, the limit is kept or broken; with one fewer, not."""
    limit = judge_limit(Threshold.parse("p99_ttft:+10%"), sides(0.115, scatter=5), Family.PRIMARY)
    assert limit.kept is Kept.UNKNOWN
    assert limit.more_runs is not None
    assert limit.more_runs > 5
    # Values of the same standard deviation, half above and half below.
    spread = math.sqrt(sum(math.log(one**5) ** 2 for one in SCATTER) / 4)

    def told(runs: int) -> bool:
        signs = [1 if place % 2 else -1 for place in range(runs)] if runs % 2 == 0 else [*([1, -1] * (runs // 2)), 0]
        size = spread * math.sqrt((runs - 1) / sum(map(abs, signs)))
        old = tuple(100 * math.exp(size * sign) for sign in signs)
        ends = interval(Sides(old, tuple(1.115 * value for value in old)))
        assert ends is not None
        return ends[0] > math.log(1.1)

    assert told(limit.more_runs + 1)
    assert not told(limit.more_runs - 2)


def test_several_limits_hold_together() -> None:
    """Each of many limits needs more evidence than it would need alone."""
    close = sides(0.115)
    assert judge_limit(Threshold.parse("p99_ttft:+10%"), close, Family.PRIMARY, 1).kept is Kept.BROKEN
    assert judge_limit(Threshold.parse("p99_ttft:+10%"), close, Family.PRIMARY, 1000).kept is Kept.UNKNOWN


def test_a_single_wrong_output_breaks_a_limit_of_none() -> None:
    limit = judge_limit(Threshold.parse("mismatch:+0"), Sides((0.0,), (1.0,)), Family.RATES)
    assert limit.kept is Kept.BROKEN
    assert judge_limit(Threshold.parse("mismatch:+1"), Sides((0.0,), (1.0,)), Family.RATES).kept is Kept.KEPT


def test_a_percentage_of_nothing_cannot_be_told() -> None:
    assert kept("decode.local_compute:+10%", Sides((0.0,) * 5, (1.0, 2.0, 3.0, 4.0, 5.0))) is Kept.UNKNOWN


def test_outputs_that_differ_and_were_not_verified_neither_break_nor_keep_a_limit() -> None:
    limit = Threshold.parse("outputs:+0")
    old = {b"k": output([1, 2], right=True)}
    for new, expected in (
        (output([1, 2]), Kept.KEPT),
        (output([1, 3], right=True), Kept.KEPT),
        (output([1, 3]), Kept.UNKNOWN),
        (output([1, 3], wrong=True), Kept.BROKEN),
    ):
        assert judge_outputs(limit, compare_outputs([old], [{b"k": new}])).kept is expected
    assert judge_outputs(limit, compare_outputs([old], [{b"other": output([1])}])).kept is Kept.UNKNOWN
