"""Teacher-forced outputs compared with the noise of control requests, on histories drawn by numpy."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import (
    Errors,
    Readings,
    conditioned,
    gaussian,
    operations,
    quantised,
    read,
    run,
    with_end,
    with_sampling,
)

from harness.history import Ended, Entry, History, Outcome, RunEnded, Sent
from harness.scenario import Route
from harness.verdict import Verdict
from harness.verify.judging import count_outputs, noise_matters, outputs, wrong_outputs

KINDS: dict[str, Errors] = {
    "float32": gaussian(1e-5),
    "bfloat16": quantised(0.0625),
    "ill-conditioned": conditioned(0.01),
}
VICTIM = "load-17"


def damaged(change: Callable[[Readings], None]) -> Callable[[str, Readings], None]:
    return lambda name, readings: change(readings) if name == VICTIM else None


def wrong_token(readings: Readings) -> None:
    """Move the token 4 nats behind its rival."""
    readings.forced[5] -= 4.0


def small_drift_everywhere(readings: Readings) -> None:
    readings.served -= 0.29
    readings.rival -= 0.29


def one_lead(readings: Readings) -> None:
    readings.served[3] += 2.0


def name_of(entry: Entry) -> str:
    return entry.request.request_id if isinstance(entry, Sent) else getattr(entry, "request_id", "")


def without(history: History, drop: Callable[[Entry], bool]) -> History:
    return History(tuple(entry for entry in history.entries if not drop(entry)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_noise_raises_no_alarm(kind: str) -> None:
    flipped = 0
    for seed in range(40):
        history = run(KINDS[kind], seed=seed)
        check, counts = outputs(DEPLOYMENT, history), count_outputs(history)
        assert check.verdict is Verdict.VALID, check.summary
        assert counts.exact + counts.tie == counts.requests == 64
        flipped += counts.tie
    assert flipped > 40 or kind == "float32", "the noise flipped too few near ties"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [wrong_token, one_lead])
def test_one_wrong_token_in_one_output_is_found_and_named(kind: str, change: Callable[[Readings], None]) -> None:
    for seed in range(5):
        history = run(KINDS[kind], seed=seed, damage=damaged(change))
        check = outputs(DEPLOYMENT, history)
        assert check.verdict is Verdict.INVALID
        assert [finding.subject for finding in check.findings] == [VICTIM] == list(wrong_outputs(history))
        assert count_outputs(history).mismatch == 1


def test_corruption_that_flips_no_token_is_found_by_drift() -> None:
    for kind in ("float32", "ill-conditioned"):
        history = run(KINDS[kind], damage=damaged(small_drift_everywhere))
        check = outputs(DEPLOYMENT, history)
        assert (check.verdict, wrong_outputs(history)) == (Verdict.INVALID, (VICTIM,))
        assert "log-probabilit" in check.findings[0].text


def shifted(by: float) -> Callable[[str, Readings], None]:
    def change(readings: Readings) -> None:
        readings.served -= by
        readings.rival -= by

    return damaged(change)


def test_drift_too_small_for_any_token_is_found_in_the_average() -> None:
    (finding,) = outputs(DEPLOYMENT, run(gaussian(0.01), damage=shifted(0.08))).findings
    assert (finding.subject, finding.token) == (VICTIM, None)
    assert "on average" in finding.text


def test_slightly_more_than_noise_is_doubtful_and_counts_as_right() -> None:
    check = outputs(DEPLOYMENT, run(gaussian(0.01), damage=shifted(0.04)))
    assert (check.verdict, check.findings) == (Verdict.VALID, ())
    (note,) = [note for note in check.notes if "doubtful" in note]
    assert note.startswith("1 doubtful, but not counted as wrong")
    assert VICTIM in note
    assert "on average" in note


def test_a_wrong_token_is_reported_with_its_index() -> None:
    (finding,) = outputs(DEPLOYMENT, run(gaussian(1e-5), damage=damaged(wrong_token))).findings
    assert finding.token == 5
    assert finding.text.startswith("output token 5 (id ")
    assert "1 of 20 tokens are wrong" in finding.text


def nan_logprob(readings: Readings) -> None:
    readings.served[4] = math.nan


def test_a_logprob_served_as_nan_is_invalid() -> None:
    (finding,) = outputs(DEPLOYMENT, run(gaussian(1e-5), damage=damaged(nan_logprob))).findings
    assert "NaN" in finding.text


def test_a_logprob_served_as_nan_is_invalid_if_the_noise_is_not_known() -> None:
    check = outputs(DEPLOYMENT, run(gaussian(1e-5), damage=damaged(nan_logprob), controls=0, failed=32))
    assert (check.verdict, check.findings[0].subject) == (Verdict.INVALID, VICTIM)
    assert "NaN" in check.findings[0].text


def test_failed_control_requests_are_unknown_and_exact_outputs_are_still_counted() -> None:
    history = run(gaussian(1e-5), controls=0, failed=32)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert "no control output was completed" in check.summary
    assert count_outputs(history).exact > 50
    few = outputs(DEPLOYMENT, run(gaussian(1e-5), controls=4))
    assert (few.verdict, "80 tokens" in few.summary) == (Verdict.UNKNOWN, True)


def test_no_control_requests_are_needed_if_no_output_shows_noise() -> None:
    quiet = run(gaussian(1e-6), controls=0)
    assert outputs(DEPLOYMENT, quiet).verdict is Verdict.VALID
    assert not noise_matters(quiet)
    for sigma in (1e-4, 1e-2):
        noisy = run(gaussian(sigma), controls=0)
        assert outputs(DEPLOYMENT, noisy).verdict is Verdict.UNKNOWN
        assert noise_matters(noisy)


def test_a_missing_log_probability_makes_the_noise_matter() -> None:
    def missing(readings: Readings) -> None:
        readings.rival[3] = math.nan

    assert noise_matters(run(gaussian(1e-6), controls=0, damage=damaged(missing)))


def test_without_a_floor_a_token_behind_the_best_is_unverified_not_invalid() -> None:
    history = run(gaussian(1e-5), controls=0, damage=damaged(wrong_token))
    assert outputs(DEPLOYMENT, history).verdict is Verdict.UNKNOWN
    assert count_outputs(history).unverified >= 1


def test_control_requests_that_all_failed_make_the_run_unknown() -> None:
    history = run(gaussian(1e-5))
    failed = [
        replace(e, outcome=Outcome.INFO, choices=(), cause="boom")
        if isinstance(e, Ended) and e.request_id.startswith("control-") and "teacher" not in e.request_id
        else e
        for e in history.entries
    ]
    check = outputs(DEPLOYMENT, History(tuple(failed)))
    assert check.verdict is Verdict.UNKNOWN
    assert "no control output was completed" in check.summary


def test_wrong_control_outputs_do_not_measure_noise() -> None:
    rng = np.random.default_rng(3)
    worse = read(rng, gaussian(1e-5))
    # Both servers agree, so this is no noise.
    worse.rival, worse.forced_rival = worse.served + 3.0, worse.forced + 3.0
    more = operations("control-bad", worse, Route.DECODE, about="load-0")
    check = outputs(DEPLOYMENT, History((*run(gaussian(1e-5)).entries, *more)))
    assert check.verdict is Verdict.UNKNOWN
    assert "nats behind the best one" in check.summary


def test_servers_that_disagree_without_transfer_have_no_noise_floor() -> None:
    check = outputs(DEPLOYMENT, run(gaussian(1.5)))
    assert check.verdict is Verdict.UNKNOWN
    assert "they do not compute the same" in check.summary


def test_verification_that_failed_is_unknown_and_hides_no_mismatch() -> None:
    history = run(gaussian(1e-5))
    broken = with_end(history, "load-3-teacher", outcome=Outcome.INFO, cause="boom", prompt_logprobs=None)
    check = outputs(DEPLOYMENT, broken)
    assert (check.verdict, check.findings[0].subject) == (Verdict.UNKNOWN, "load-3")
    assert "boom" in check.summary
    worse = run(gaussian(1e-5), damage=damaged(wrong_token))
    worse = with_end(worse, "load-3-teacher", outcome=Outcome.INFO, cause="boom", prompt_logprobs=None)
    assert outputs(DEPLOYMENT, worse).verdict is Verdict.INVALID


def test_forcing_without_numbers_verifies_nothing() -> None:
    history = run(gaussian(1e-5))
    assert outputs(DEPLOYMENT, with_end(history, "load-3-teacher", prompt_logprobs=())).verdict is Verdict.UNKNOWN


def test_outputs_that_a_policy_left_out_are_reported_and_do_not_matter() -> None:
    left_out = {f"load-{number}-teacher" for number in range(10)}
    history = without(run(gaussian(1e-5)), lambda entry: name_of(entry) in left_out)
    check, counts = outputs(DEPLOYMENT, history), count_outputs(history)
    assert (check.verdict, check.findings) == (Verdict.VALID, ())
    assert "10 not sampled" in check.summary
    assert (counts.unverified, counts.exact + counts.tie) == (10, 54)


def test_nothing_verified_is_unknown() -> None:
    unforced = without(run(gaussian(1e-5)), lambda entry: "teacher" in name_of(entry))
    assert outputs(DEPLOYMENT, unforced).verdict is Verdict.UNKNOWN
    assert outputs(DEPLOYMENT, run(gaussian(1e-5), outputs=0, controls=0)).verdict is Verdict.UNKNOWN


def test_an_output_with_too_many_tokens_is_invalid() -> None:
    history = with_sampling(run(gaussian(1e-5)), VICTIM, max_tokens=19)
    (finding,) = outputs(DEPLOYMENT, history).findings
    assert finding.text.startswith("it has 20 tokens, and at most 19 were requested")


def test_a_prompt_that_is_noisier_than_all_others_is_right_by_its_own_control_outputs() -> None:
    rng = np.random.default_rng(1)
    noisy = gaussian(30 * 1e-5)

    def worse(readings: Readings) -> None:
        for name, values in vars(read(rng, noisy)).items():
            setattr(readings, name, values)

    history = run(gaussian(1e-5), damage=damaged(worse))
    assert wrong_outputs(history) == (VICTIM,)
    again = [
        entry
        for turn in range(4)
        for entry in operations(f"{VICTIM}-control{turn}", read(rng, noisy), Route.DECODE, about=VICTIM)
    ]
    assert outputs(DEPLOYMENT, History((*history.entries, *again))).verdict is Verdict.VALID


def test_the_noise_floor_is_reported() -> None:
    floor = count_outputs(run(gaussian(1e-5))).noise_floor
    assert (floor["control_requests"], floor["control_tokens"], floor["alpha"]) == (32, 640, 1e-3)
    # Differences of two readings of two logits each: a standard deviation of 2e-5 nats.
    assert 1e-4 <= float(floor["regret_nats"] or 0) < 4e-4
    assert 0.9 < float(floor["power"] or 0) <= 1


def test_without_served_logprobs_tokens_alone_are_compared_and_the_summary_says_so() -> None:
    history = run(gaussian(1e-5), damage=damaged(wrong_token))
    bare = History(
        tuple(
            replace(e, choices=tuple(replace(choice, logprobs=()) for choice in e.choices))
            if isinstance(e, Ended) and e.request_id.startswith("load-")
            else e
            for e in history.entries
        )
    )
    check = outputs(DEPLOYMENT, bare)
    assert check.verdict is Verdict.INVALID
    assert "tokens alone" in check.summary


def test_tokens_that_min_tokens_forces_are_not_wrong() -> None:
    def ends(readings: Readings) -> None:
        """Make the end token the best one at index 5, as served and as forced."""
        readings.forced_rival[5] = readings.forced[5] + 3.0
        readings.rival[5] = readings.served[5] + 3.0

    history = run(gaussian(1e-5), damage=damaged(ends))
    assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID
    assert outputs(DEPLOYMENT, with_sampling(history, VICTIM, min_tokens=10)).verdict is Verdict.VALID


def test_a_long_run_of_bfloat16_noise_stays_clean() -> None:
    history = run(quantised(0.0625), outputs=2000, seed=5)
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID
    assert np.isfinite(float(count_outputs(history).noise_floor["drift_nats"] or math.nan))
    assert any(isinstance(entry, RunEnded) for entry in history.entries)
