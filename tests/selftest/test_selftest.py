"""The selftest: it catches planted bugs, raises no false alarm, and is deterministic."""

import asyncio
import multiprocessing
from collections import Counter
from dataclasses import replace

import pytest
from polling import until

from harness.checkers import judge
from harness.cli.options import parse
from harness.errors import UsageError
from harness.history import Outcome
from harness.selftest import Result, SelftestOptions, Trial, make_report, plan_trials, run_trial, table_lines
from harness.selftest.interval import clopper_pearson, power_per_strike, requests_needed
from harness.selftest.loads import COLD, LOADS, Writer, load_for
from harness.selftest.pool import run_trials
from harness.selftest.report import UNKNOWN_IS_RIGHT, is_caught
from harness.selftest.transport import TIMEOUT, SimTransport
from harness.selftest.trial import record_trial
from harness.selftest.world import World
from harness.sim import BUGS, KINDS, QUIET, PlantedBug, SimConfig, SimPair
from harness.verdict import Verdict

N = 160
"""Requests of a trial here: 8 of them are bad at one in 20."""
SEEN_BY = {
    "flipped_byte": "outputs",
    "swapped_blocks": "outputs",
    "offload_stores_wrong": "outputs",
    "bystander_write": "outputs",
    "dropped_params": "token_sources",
    "bytes_lost": "nixl_bytes",
    "ignores_offload": "offload_bytes",
    "leaked_block": "settled",
    "leaked_blocks": "settled",
    "burst": "streaming",
    "spurious_400": "completion",
}
QUICK = {"bytes_lost", "burst", "spurious_400"}
"""Bugs whose verification needs no search for owners."""


def planted(bug: str | None, seed: int = 1, requests: int = N) -> Result:
    load = COLD if bug is None else load_for(bug)
    return run_trial(Trial(load, bug, 1 / 20 if bug else 0.0, requests, seed))


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=() if bug in QUICK else pytest.mark.slow) for bug in sorted(SEEN_BY)]
)
def test_a_planted_bug_is_caught_by_its_checker(bug: str) -> None:
    result = planted(bug)
    assert result.struck
    assert result.verdict is Verdict.INVALID
    assert [check.verdict for check in result.checks if check.name == SEEN_BY[bug]] == [Verdict.INVALID]
    assert result.accused == 0


async def test_cancelled_trials_leave_no_process() -> None:
    running = asyncio.create_task(run_trials([Trial(COLD, None, 0.0, 2000, seed) for seed in range(2)], jobs=2))
    await until(multiprocessing.active_children, "no trial was begun")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not multiprocessing.active_children()


def test_lost_evidence_is_unknown() -> None:
    result = planted("counter_reset")
    assert result.struck
    assert result.verdict is Verdict.UNKNOWN
    assert is_caught(result)
    assert UNKNOWN_IS_RIGHT.keys() <= BUGS.keys()


@pytest.mark.parametrize(
    "load", [pytest.param(load, marks=() if load is COLD else pytest.mark.slow, id=load.name) for load in LOADS]
)
def test_a_clean_pair_that_flips_near_ties_raises_no_false_alarm(load: object) -> None:
    result = run_trial(Trial(load, None, 0.0, N, 3))  # type: ignore[arg-type]  # parametrize has no types
    assert [(check.name, check.verdict, check.summary) for check in result.checks if check.verdict != "valid"] == []
    assert result.outputs.tie > 0
    assert (result.struck, result.wrong, result.accused) == (0, 0, 0)


@pytest.mark.slow
def test_a_trial_is_deterministic() -> None:
    first, second = (replace(planted("foreign_blocks", requests=60), seconds=0.0) for _ in range(2))
    assert first == second


async def test_a_trial_reads_the_offload_tiers_and_reports_the_tokens() -> None:
    carried, _ = await record_trial(Trial(COLD, None, 0.0, 40, 0))
    deployment, history = carried.deployment, carried.history
    blocks = sum((len(o.request.prompt) - 1) // 8 for o in history.operations(phase="load"))
    [check] = [check for check in judge(deployment, history).checks if check.name == "outputs"]
    restored = f"the tier restored {8 * blocks:,} tokens"
    for name in ("decode-0", "prefill-0"):
        assert any(note.startswith(f"{name}'s offload tier: ") and restored in note for note in check.notes)


@pytest.mark.slow
def test_exactly_the_wrong_requests_are_named() -> None:
    result = planted("full_hit_wrong")
    assert result.wrong == result.named > 0
    assert result.accused == 0


def test_a_load_has_the_given_number_of_requests() -> None:
    for load in LOADS:
        config = SimConfig(**load.fields)
        phases = load.write(Writer(config, 0), 100)
        prompts = [request.prompt for phase in phases for request in phase.requests]
        assert len(prompts) == 100
        assert len({prompt[: config.block_size + 1] for prompt in prompts}) == 100


async def test_the_clock_jumps_if_no_engine_has_work() -> None:
    async with World() as world:
        woken: list[str] = []

        async def sleeper(name: str, seconds: float) -> None:
            await world.sleep(seconds)
            woken.append(name)

        await asyncio.gather(sleeper("late", 5000.0), sleeper("early", 0.5))
    assert woken == ["early", "late"]
    assert world.now() == pytest.approx(5000.0)


async def test_a_cancelled_alarm_is_not_called() -> None:
    async with World() as world:
        world.at(10.0, lambda: pytest.fail("it was cancelled")).cancel()
        await world.sleep(20.0)
    assert world.now() == pytest.approx(20.0)


async def test_a_request_that_hangs_times_out_in_virtual_time() -> None:
    world = World()
    pair = world.pair = SimPair(SimConfig(noise=QUIET, bugs=(PlantedBug("hung_request"),)), world.now)
    transport = SimTransport(pair, world, {server.name: server.name for server in pair.servers})
    request = Writer(pair.config, 0).ask((300, 301, 302))
    async with world:
        ended = await transport.send(request)
    assert (ended.outcome, ended.status) == (Outcome.INFO, 200)
    assert "no end of the answer" in ended.cause
    assert TIMEOUT <= world.now() < TIMEOUT + 1


async def test_a_history_holds_the_load_and_its_verification() -> None:
    carried, ledger = await record_trial(Trial(COLD, None, 0.0, 40, 0))
    history = carried.history
    asked = [o for o in history.operations() if o.request.of_load]
    forced = [o for o in history.operations() if o.request.sampling.prompt_logprobs is not None]
    assert len(asked) == 40
    assert len(forced) >= 40
    assert all(o.outcome is Outcome.OK for o in history.operations())
    assert not history.ended_early
    assert not ledger.wrong


def test_trials_are_planned_for_each_bug_rate_and_repeat() -> None:
    options = SelftestOptions(bugs=("burst", "misaligned_hit"), one_in=(20, 200), repeats=2, clean_requests=4000)
    trials = plan_trials(options)
    bad = [trial for trial in trials if trial.bug]
    assert len(bad) == 2 * 2 * 2
    sizes = {(trial.bug, trial.rate, trial.requests) for trial in bad}
    # Half of the requests under the load of misaligned_hit can be struck: ten bad ones take twice as many.
    assert sizes == {
        ("burst", 1 / 20, 200),
        ("burst", 1 / 200, 2000),
        ("misaligned_hit", 1 / 20, 400),
        ("misaligned_hit", 1 / 200, 2000),
    }
    assert [trial.load.name for trial in trials if not trial.bug] == ["cold", "prefixes", "cold", "prefixes", "cold"]


def test_trials_have_each_kind_of_noise_in_turn() -> None:
    trials = plan_trials(SelftestOptions(repeats=5, clean_requests=50_000))
    planted_under = Counter((trial.bug, trial.rate, trial.noise) for trial in trials if trial.bug)
    showing = [bug for bug in BUGS if BUGS[bug].signs != {"drift"}]
    every = {(bug, 1 / n, kind): 1 for bug in showing for n in (20, 200) for kind in KINDS}
    assert every.items() <= planted_under.items()
    clean_under = Counter((trial.load.name, trial.noise) for trial in trials if not trial.bug)
    assert clean_under == {(load.name, kind): 1 for load in LOADS for kind in KINDS}
    # However few clean requests are asked for, no kind of noise goes untested.
    few = [trial for trial in plan_trials(SelftestOptions(bugs=("burst",), clean_requests=1)) if not trial.bug]
    assert {trial.noise for trial in few} == set(KINDS)


def test_a_bug_that_only_moves_log_probabilities_is_planted_under_light_noise() -> None:
    trials = plan_trials(SelftestOptions(bugs=("scaled_kv",), repeats=5))
    assert {trial.noise for trial in trials if trial.bug} == {"usual", "none"}
    chosen = plan_trials(SelftestOptions(bugs=("scaled_kv",), noises=("student",)))
    assert {trial.noise for trial in chosen} == {"student"}


def test_one_kind_of_noise_can_be_chosen() -> None:
    trials = plan_trials(SelftestOptions(noises=("student",)))
    assert {trial.noise for trial in trials} == {"student"}
    with pytest.raises(UsageError, match="give one of usual, none, student, mixture, quantised"):
        plan_trials(SelftestOptions(noises=("pink",)))


@pytest.mark.parametrize("kind", ["student", "mixture", "quantised"])
async def test_a_trial_has_its_kind_of_noise(kind: str) -> None:
    quiet, noisy = [(await record_trial(Trial(COLD, None, 0.0, 60, 5, noise=one)))[0] for one in ("none", kind)]
    reported = [[o.ended.choices for o in carried.history.operations(phase="load")] for carried in (quiet, noisy)]
    assert reported[0] != reported[1]
    assert not quiet.judgement.outputs.tie


def test_the_report_counts_clean_runs_by_kind_of_noise() -> None:
    one = run_trial(Trial(COLD, None, 0.0, 40, 3, noise="none"))
    other = replace(one, trial=replace(one.trial, noise="student"), asked=30, verdict=Verdict.INVALID)
    report = make_report([one, other, replace(other, verdict=Verdict.VALID), replace(one, verdict=Verdict.UNKNOWN)])
    # One of two: Clopper and Pearson's interval is 1.3 to 98.7 %.
    assert [(row.noise, row.runs, row.requests, row.alarms) for row in report.noises] == [
        ("none", 2, 80, 1),
        ("student", 2, 60, 1),
    ]
    assert report.noises[0].low == pytest.approx(0.0126, abs=1e-4)
    assert (report.clean_runs, report.clean_requests, len(report.alarms)) == (4, 140, 2)
    assert "noise student" in report.alarms[0]
    lines = list(table_lines(report))
    assert any(line.split()[:3] == ["student", "60", "0.0%"] and "1/2 [1%, 99%]" in line for line in lines)
    assert not report.passed


def test_an_unknown_bug_is_refused() -> None:
    with pytest.raises(UsageError, match="No such bug: nonsense"):
        plan_trials(SelftestOptions(bugs=("nonsense",)))


@pytest.mark.slow
def test_the_selftest_passes_only_if_all_bugs_are_caught_without_false_alarms() -> None:
    caught, clean = planted("flipped_byte"), planted(None)
    assert make_report([caught, clean]).passed
    # Without clean runs, nothing is known of false alarms.
    assert not make_report([caught]).passed
    missed = replace(caught, verdict=Verdict.VALID)
    unknown = replace(caught, verdict=Verdict.UNKNOWN)
    for results in ([missed, clean], [unknown, clean], [replace(caught, struck=0), clean]):
        assert not make_report(results).passed
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        report = make_report([caught, replace(clean, verdict=verdict)])
        assert len(report.alarms) == 1
        assert not report.passed
    lines = "\n".join(table_lines(make_report([missed, clean])))
    assert "MISSED  flipped_byte" in lines
    assert "FAILED  0 of 1" in lines


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 20, 0.0013, 0.2487), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_those_of_the_published_tables(successes: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_the_power_per_bad_request_is_estimated_from_runs_with_several() -> None:
    assert power_per_strike([]) == (0.0, 0.0)
    assert power_per_strike([(0, False), (3, False)]) == (0.0, 0.0)
    # Runs of one each: the plain share. 1 - 0.05 ** (1 / 10) bounds ten of ten.
    likeliest, _ = power_per_strike([(1, True)] * 6 + [(1, False)] * 2)
    assert likeliest == pytest.approx(0.75, abs=1e-6)
    assert power_per_strike([(1, True)] * 10) == pytest.approx((1.0, 0.05 ** (1 / 10)), abs=1e-4)
    # Two each, three of four caught: 1 - (1 - q)^2 = 0.75.
    likeliest, least = power_per_strike([(2, True)] * 3 + [(2, False)])
    assert likeliest == pytest.approx(0.5, abs=1e-6)
    assert 0 < least < likeliest


def test_requests_needed() -> None:
    assert requests_needed(1 / 200) == 598  # 0.995 ** 598 < 0.05 <= 0.995 ** 597
    assert requests_needed(0.0) is None
    assert requests_needed(1.0) == 1


def test_flags() -> None:
    options = parse(["selftest", "--rates", "200,50", "--repeats", "3", "--bug", "burst", "--jobs", "1", "--seed", "7"])
    assert options.selftest == SelftestOptions(bugs=("burst",), one_in=(50, 200), repeats=3, seed=7, jobs=1)
    assert parse(["run"]).selftest is None
    for words, kinds in (([], KINDS), (["--sim-noise", "mixture"], ("mixture",))):
        chosen = parse(["selftest", *words]).selftest
        assert chosen is not None
        assert chosen.noises == kinds
    for wrong in (["--rates", "often"], ["--requests", "0"]):
        with pytest.raises(SystemExit) as refused:
            parse(["selftest", *wrong])
        assert refused.value.code == 2
