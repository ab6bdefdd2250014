"""Two sets of runs: what is refused, what is concluded, and the exit code."""

from dataclasses import replace

import pytest
from made_stored_runs import SETTINGS, in_turns, output, stored_run

from harness.compare import Conclusion, NotComparableError, StoredRun, compare, parse_thresholds
from harness.compare.comparison import beside
from harness.compare.stored_run import Share
from harness.errors import ExitCode, UsageError
from harness.verdict import Verdict

SCATTER = (99.0, 100.0, 101.0, 100.5, 99.5)
SLOWER = tuple(1.1 * one for one in SCATTER[::-1])
EVEN = (99.2, 100.1, 100.7, 100.4, 99.6)


def changed(runs: list[StoredRun], **changes: object) -> list[StoredRun]:
    return [replace(one, **changes) for one in runs]  # type: ignore[arg-type]


def test_ten_percent_more_p99_ttft_in_five_runs_is_worse() -> None:
    found = compare(*in_turns(SCATTER, SLOWER))
    assert (found.conclusion, found.exit_code) == (Conclusion.WORSE, ExitCode.INVALID)
    change = found.change("p99_ttft")
    assert change is not None
    assert (change.real, change.worse) == (True, True)
    assert [one.metric.name for one in found.changes if one.real] == ["p99_ttft"]


def test_ten_percent_less_is_no_worse_and_real() -> None:
    found = compare(*in_turns(SLOWER, SCATTER))
    assert (found.conclusion, found.exit_code) == (Conclusion.NO_WORSE, ExitCode.VALID)
    assert found.change("p99_ttft").real  # type: ignore[union-attr]


def test_less_throughput_is_worse() -> None:
    assert compare(*in_turns(SLOWER, SCATTER, "output_throughput")).conclusion is Conclusion.WORSE


def test_the_same_build_is_no_worse() -> None:
    assert compare(*in_turns(SCATTER, EVEN)).conclusion is Conclusion.NO_WORSE


def test_a_change_that_five_metrics_may_show_by_chance_is_not_real() -> None:
    """All runs of one side are slower, by about four standard errors: p = 0.003 alone, 0.015 among five."""
    found = compare(*in_turns(SCATTER, [one + 2.1 for one in SCATTER]))
    change = found.change("p99_ttft")
    assert change is not None
    assert change.evidence.p < 0.01 < change.evidence.p_family  # type: ignore[operator]
    assert not change.real
    assert found.conclusion is Conclusion.NO_WORSE


def test_a_further_metric_that_is_worse_is_shown_and_decides_nothing() -> None:
    found = compare(*in_turns(SCATTER, SLOWER, "p50_itl"))
    assert found.conclusion is Conclusion.NO_WORSE
    assert found.change("p50_itl").real  # type: ignore[union-attr]


def test_with_too_few_runs_nothing_is_no_worse() -> None:
    """A comparison that could not have found anything must not pass."""
    found = compare(*in_turns(SCATTER[:1], EVEN[:1]))
    assert (found.conclusion, found.exit_code) == (Conclusion.UNKNOWN, ExitCode.UNKNOWN)
    assert compare(*in_turns(SCATTER[:3], EVEN[:3])).conclusion is Conclusion.UNKNOWN


@pytest.mark.parametrize(
    ("old", "new", "conclusion"),
    [
        (Verdict.VALID, Verdict.INVALID, Conclusion.WORSE),
        (Verdict.UNKNOWN, Verdict.INVALID, Conclusion.WORSE),
        (Verdict.VALID, Verdict.UNKNOWN, Conclusion.UNKNOWN),
        (Verdict.INVALID, Verdict.INVALID, Conclusion.NO_WORSE),
        (Verdict.INVALID, Verdict.VALID, Conclusion.NO_WORSE),
    ],
)
def test_a_worse_verdict_of_a_single_run_counts(old: Verdict, new: Verdict, conclusion: Conclusion) -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    run[2] = replace(run[2], verdict=new)
    found = compare(changed(baseline, verdict=old), run)
    assert found.conclusion is conclusion
    assert any(run[2].name in note for note in found.notes) == (new is not Verdict.VALID)


def test_a_wrong_output_is_worse_even_with_one_run() -> None:
    baseline, run = in_turns(SCATTER[:1], EVEN[:1])
    wrong = changed(run, outputs={b"one": output([1, 2, 9], wrong=True)})
    assert compare(baseline, wrong).conclusion is Conclusion.WORSE


def test_failed_requests_in_every_run_are_worse() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    failing = [replace(one, shares={**one.shares, "failed": Share(20 + n, 400)}) for n, one in enumerate(run)]
    found = compare(baseline, failing)
    assert found.conclusion is Conclusion.WORSE
    assert found.totals["failed"] == (Share(0, 2000), Share(110, 2000))


@pytest.mark.parametrize("setting", ["model", "max_concurrency", "fault"])
def test_runs_of_another_load_or_deployment_are_refused_and_the_difference_is_named(setting: str) -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    other = changed(run, settings={**SETTINGS, setting: "other"})
    with pytest.raises(NotComparableError, match=f"{setting}: .*other in b0") as raised:
        compare(baseline, other)
    assert raised.value.exit_code is ExitCode.USAGE
    assert list(raised.value.differences) == [setting]
    allowed = compare(baseline, other, allow_different=[setting])
    assert list(allowed.allowed) == [setting]


def test_a_fact_that_an_older_release_did_not_store_is_no_difference() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    newer = changed(run, settings={**SETTINGS, "kv_dtype": "float32"})
    assert compare(baseline, newer).conclusion is Conclusion.NO_WORSE


def test_each_value_that_differs_stands_beside_a_run_that_has_it() -> None:
    assert beside({"a": "16", "b": "32", "c": "16"}) == "16 in a and 1 other run, 32 in b"


def test_the_noise_within_two_runs_is_that_of_their_mean() -> None:
    """One run of each: sqrt(0.03^2 + 0.03^2). Two of the baseline: sqrt(0.03^2 / 2 + 0.03^2)."""
    known = {"p99_ttft": 0.03}
    baseline, run = (changed(side, within=known) for side in in_turns(SCATTER[:2], EVEN[:1]))
    for runs, expected in ((1, 0.0018), (2, 0.00135)):
        change = compare(baseline[:runs], run).change("p99_ttft")
        assert change is not None
        assert change.sides.within is not None
        assert change.sides.within**2 == pytest.approx(expected)
    lacking = [baseline[0], replace(baseline[1], within={})]
    assert compare(lacking, run).change("p99_ttft").sides.within is None  # type: ignore[union-attr]


def test_other_versions_are_compared() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    assert compare(baseline, changed(run, versions={"engine": "9"})).conclusion is Conclusion.NO_WORSE


def test_latencies_of_a_client_that_may_not_have_kept_up_are_not_compared() -> None:
    baseline, run = in_turns(SCATTER, SLOWER)
    found = compare(baseline, changed(run, why_no_latencies="has no proof"))
    assert found.conclusion is Conclusion.UNKNOWN
    assert found.change("p99_ttft") is None
    assert found.change("failed") is not None


def test_one_such_run_of_five_leaves_too_few() -> None:
    baseline, run = in_turns(SCATTER, SLOWER)
    run[0] = replace(run[0], why_no_latencies="was interrupted", problem="was interrupted")
    found = compare(baseline, run)
    assert found.change("p99_ttft").sides.run == SLOWER[1:]  # type: ignore[union-attr]
    assert found.conclusion is Conclusion.UNKNOWN
    assert any("b0 was interrupted" in note for note in found.notes)


def test_a_metric_that_a_run_lacks_is_not_compared() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    lacking = changed(run, values={"p99_ttft": 100.0})
    found = compare(baseline, lacking)
    assert found.change("p50_itl") is None


def test_a_counter_that_one_side_lacks_is_not_compared() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    assert compare(baseline, changed(run, counters={})).change("decode.external_kv_transfer") is None


def test_limits_replace_the_usual_conclusion() -> None:
    sides = in_turns(SCATTER, SLOWER)
    for limits, code in (
        (["p99_ttft:+20%"], 0),
        (["p99_ttft:+5%"], 1),
        (["p99_ttft:+10%"], 3),
        (["p99_ttft:+10%", "p99_ttft:+5%"], 1),
        (["mismatch:+0", "failed:+0", "outputs:+0"], 0),
    ):
        assert compare(*sides, parse_thresholds(limits)).exit_code == code, limits


def test_a_limit_of_wrong_outputs_cannot_be_kept_if_nothing_was_verified() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    blind = [replace(one, shares={**one.shares, "mismatch": Share(0, 0)}) for one in run]
    assert compare(baseline, blind, parse_thresholds(["mismatch:+0"])).exit_code is ExitCode.UNKNOWN


def test_a_limit_of_no_metric_names_the_metrics() -> None:
    with pytest.raises(UsageError, match="p99_ttft"):
        compare(*in_turns(SCATTER, EVEN), parse_thresholds(["p98_ttft:+10%"]))


def test_a_reader_is_warned_if_one_side_is_older() -> None:
    baseline = [stored_run(f"a{n}", n, {"p99_ttft": one}) for n, one in enumerate(SCATTER)]
    run = [stored_run(f"b{n}", 10 + n, {"p99_ttft": one}) for n, one in enumerate(EVEN)]
    assert any("drift" in note for note in compare(baseline, run).notes)
    assert not any("drift" in note for note in compare(*in_turns(SCATTER, EVEN)).notes)


def test_the_reason_counts_the_runs_whose_latencies_are_compared() -> None:
    baseline, run = in_turns(SCATTER, SLOWER)
    run[0] = replace(run[0], why_no_latencies="was interrupted", problem="was interrupted")
    reasons = " ".join(compare(baseline, run).reasons)
    assert "5 and 4 runs whose latencies can be compared are too few" in reasons
    assert "5 and 5 runs" not in reasons


def test_runs_without_any_latency_in_common_are_not_no_worse() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    found = compare(changed(baseline, values={"p99_ttft": 1.0}), changed(run, values={"p99_e2el": 1.0}))
    assert found.conclusion is Conclusion.UNKNOWN
    assert "no latency and no throughput was measured in all runs" in found.reasons
    assert "not compared, because some runs have not measured it: p99_ttft, p99_e2el" in found.notes


def test_a_limit_in_another_unit_than_the_metrics_is_refused() -> None:
    sides = in_turns(SCATTER, SLOWER)
    for limit in ("output_throughput:-5s", "p99_ttft:+10/s", "mismatch:+2ms", "outputs:+0ms", "failed:+1/s"):
        with pytest.raises(UsageError, match="cannot be limited in"):
            compare(*sides, parse_thresholds([limit]))
    for limit in ("output_throughput:-50/s", "output_throughput:-50", "p99_ttft:+50000us", "p99_ttft:+50", "failed:+1"):
        assert compare(*sides, parse_thresholds([limit])).exit_code is ExitCode.VALID


def test_a_limit_of_a_counter_that_some_runs_lack_cannot_be_told() -> None:
    baseline, run = in_turns(SCATTER, EVEN)
    run[0] = replace(run[0], counters={})
    limit = parse_thresholds(["decode.external_kv_transfer:+1%"])
    assert compare(baseline, run, limit).exit_code is ExitCode.UNKNOWN


def test_a_limit_in_percent_of_a_share_is_one_of_that_share() -> None:
    """Failed requests rise from 10 to 12 of 100 in each run, by 20 %."""
    baseline, run = in_turns(SCATTER, EVEN)
    shares = [[replace(one, shares={**one.shares, "failed": Share(n, 100)}) for one in side]
              for side, n in ((baseline, 10), (run, 12))]  # fmt: skip
    assert [compare(*shares, parse_thresholds([f"failed:+{n}%"])).exit_code for n in (15, 25)] == [1, 0]
    limit = compare(baseline, run, parse_thresholds(["failed:+15%"])).limits[0]
    assert "a value of 0 has no change in percent" in limit.why


def test_a_side_without_runs_is_refused() -> None:
    with pytest.raises(UsageError):
        compare([], [stored_run("b")])
