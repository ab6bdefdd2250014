"""Outputs that have both a teacher forcing and a reference, on histories made by hand from numpy's noise."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, prompt_of, run, with_end, with_sampling

from harness.history import Ended, Entry, History, Outcome, RunEnded, Sent, TokenLogprob
from harness.scenario import Purpose, Request, Route, Sampling
from harness.verdict import Verdict
from harness.verify.judging import count_outputs, look_at_outputs, outputs, part_of

WHO = "load-3"
SIGMA = 0.01
"""Standard deviation of the errors, nats; the noise limit is then about 0.1 nats."""


def entry_of(history: History, name: str) -> Ended:
    return next(entry for entry in history.of(Ended) if entry.request_id == name)


def with_reference(change: Callable[[Ended], Ended], history: History | None = None, **sampling: object) -> History:
    """The history with a reference of WHO: its own answer, changed by ``change``."""
    history = history or run(gaussian(SIGMA), seed=1)
    answer = entry_of(history, WHO)
    reference = Request(
        f"{WHO}-reference",
        prompt_of(WHO),
        Sampling(max_tokens=20, logprobs=2, **sampling),  # type: ignore[arg-type]  # the tests name the fields
        Route.PREFILL,
        purpose=Purpose.REFERENCE,
        about=WHO,
    )
    ended = replace(answer, request_id=reference.request_id, prompt_token_ids=prompt_of(WHO))
    entries: list[Entry] = [*history.entries, Sent(5.0, reference, "load", "control", 5.0), change(ended)]
    return History((*entries, RunEnded(9.0)))


def other_token(margin: float, at: int = 6) -> Callable[[Ended], Ended]:
    """The reference has other tokens from index ``at`` on, where its margin is ``margin``, nats."""

    def change(ended: Ended) -> Ended:
        choice = ended.choices[0]
        logprobs = list(choice.logprobs)
        logprobs[at] = TokenLogprob(9, -0.5, -0.5 - margin)
        tokens = (*choice.token_ids[:at], 9, *range(50, 50 + len(choice.token_ids) - at - 1))
        return replace(ended, choices=(replace(choice, token_ids=tokens, logprobs=tuple(logprobs)),))

    return change


def shorter(ended: Ended) -> Ended:
    choice = ended.choices[0]
    short = replace(choice, token_ids=choice.token_ids[:12], logprobs=choice.logprobs[:12], finish_reason="stop")
    return replace(ended, choices=(short,))


def same(ended: Ended) -> Ended:
    return ended


def verdict_on(history: History) -> tuple[Verdict, str]:
    """The verdict on the outputs, and the text of the finding about WHO."""
    check = outputs(DEPLOYMENT, history)
    return check.verdict, next((finding.text for finding in check.findings if finding.subject == WHO), "")


def test_equal_tokens_are_right() -> None:
    assert verdict_on(with_reference(same)) == (Verdict.VALID, "")


def test_a_first_difference_at_a_margin_within_the_noise_is_a_tie() -> None:
    plain, tied = count_outputs(with_reference(same)), count_outputs(with_reference(other_token(0.005)))
    assert verdict_on(with_reference(other_token(0.005)))[0] is Verdict.VALID
    assert (tied.mismatch, tied.unverified, tied.requests) == (0, 0, plain.requests)
    assert tied.tie == plain.tie + 1


def test_a_first_difference_at_a_larger_margin_is_wrong() -> None:
    verdict, text = verdict_on(with_reference(other_token(1.5)))
    assert verdict is Verdict.INVALID
    assert "first differs from its reference at output token 6" in text
    assert "margin of the reference there is 1.5000 nats" in text


def test_an_answer_with_right_tokens_that_ends_elsewhere_is_wrong() -> None:
    verdict, text = verdict_on(with_reference(shorter))
    assert verdict is Verdict.INVALID
    assert "20 tokens where its reference has 12" in text


def test_drift_counts_even_if_every_token_equals_the_reference() -> None:
    def drifted(name: str, readings: Readings) -> None:
        if name == WHO:
            readings.served -= 0.5
            readings.rival -= 0.5

    verdict, text = verdict_on(with_reference(same, run(gaussian(SIGMA), seed=1, damage=drifted)))
    assert verdict is Verdict.INVALID
    assert "log-probabilit" in text


def test_another_prompt_than_that_of_the_reference_is_wrong_at_any_answer() -> None:
    reported = (7, 7, *prompt_of(WHO)[2:])
    verdict, text = verdict_on(with_end(with_reference(same), f"{WHO}-reference", prompt_token_ids=reported))
    assert verdict is Verdict.INVALID
    assert "another prompt than was sent" in text
    assert "from token 1 on" in text


def test_a_reference_that_failed_leaves_its_output_unverified() -> None:
    verdict, text = verdict_on(with_reference(lambda ended: replace(ended, outcome=Outcome.INFO, cause="500")))
    assert (verdict, text) == (Verdict.UNKNOWN, "its reference did not complete: 500")


def test_an_echo_with_another_text_is_wrong() -> None:
    def other_text(ended: Ended) -> Ended:
        return replace(ended, choices=(replace(ended.choices[0], text="something else"),))

    assert verdict_on(with_sampling(with_reference(same), WHO, echo=True))[0] is Verdict.VALID
    verdict, text = verdict_on(with_sampling(with_reference(other_text), WHO, echo=True))
    assert (verdict, "its text is not the text of its reference" in text) == (Verdict.INVALID, True)


def test_without_a_noise_floor_no_margin_excuses_a_difference() -> None:
    history = with_reference(other_token(0.005), run(gaussian(SIGMA), seed=1, controls=0))
    assert outputs(DEPLOYMENT, history).verdict is not Verdict.VALID


# Answers of a wrong shape


def answered(reported: tuple[int, ...] | None = None, **sampling: Any) -> tuple[Verdict, str]:
    """The verdict on a run in which WHO asked for this ``sampling``, and the text of its finding."""
    history = with_end(run(gaussian(SIGMA), seed=1), WHO, prompt_token_ids=reported)
    return verdict_on(with_sampling(history, WHO, logprobs=None, **sampling))


def test_an_answer_that_ends_with_reason_length_too_early_is_wrong() -> None:
    assert answered(max_tokens=20)[0] is Verdict.VALID
    verdict, text = answered(max_tokens=30)
    assert verdict is Verdict.INVALID
    assert text.startswith("it ended with finish_reason 'length' after 20 of 30 requested tokens")


def test_fewer_choices_than_requested_are_wrong() -> None:
    verdict, text = answered(max_tokens=20, n=3)
    assert verdict is Verdict.INVALID
    assert text.startswith("it has 1 choices, and 3 were requested")


def test_an_answer_to_another_prompt_is_wrong() -> None:
    assert answered(prompt_of(WHO), max_tokens=20)[0] is Verdict.VALID
    verdict, text = answered((1, 2), max_tokens=20)
    assert verdict is Verdict.INVALID
    assert "another prompt than was sent" in text


# Sampled tokens


@pytest.mark.parametrize(
    ("temperature", "regret", "verdict"),
    [(0.01, 0.2, Verdict.VALID), (0.01, 2.0, Verdict.INVALID), (0.0, 0.6, Verdict.INVALID), (0.5, 2.0, Verdict.VALID)],
)
def test_a_sampled_token_may_be_as_far_behind_as_its_temperature_allows(
    temperature: float, regret: float, verdict: Verdict
) -> None:
    def behind(name: str, readings: Readings) -> None:
        if name == WHO:
            for one, rival in ((readings.served, readings.rival), (readings.forced, readings.forced_rival)):
                rival[4] = one[4] + regret

    history = run(gaussian(SIGMA), seed=1, damage=behind)
    assert verdict_on(with_sampling(history, WHO, temperature=temperature))[0] is verdict


def test_sampled_tokens_without_log_probabilities_are_unverified_unless_they_are_the_best() -> None:
    def behind(name: str, readings: Readings) -> None:
        if name == WHO:
            readings.forced[4] = readings.forced_rival[4] - 0.05

    for damage, verdict in ((lambda _name, _readings: None, Verdict.VALID), (behind, Verdict.UNKNOWN)):
        history = run(gaussian(1e-5), seed=1, damage=damage)
        (choice,) = entry_of(history, WHO).choices
        bare = with_end(history, WHO, choices=(replace(choice, logprobs=()),))
        sampled = with_sampling(bare, WHO, logprobs=None, temperature=0.5)
        assert outputs(DEPLOYMENT, sampled).verdict is verdict


def test_in_the_part_of_a_scenario_an_output_without_forcing_and_reference_is_unverified() -> None:
    history = run(gaussian(SIGMA), seed=1)
    forgotten = [
        entry
        for entry in history.entries
        if not (isinstance(entry, Sent) and entry.request.about == WHO)
        and not (isinstance(entry, Ended) and entry.request_id == f"{WHO}-teacher")
    ]
    left = History(tuple(forgotten))
    part = part_of(DEPLOYMENT, left, look_at_outputs(left), {WHO, "load-4"})
    assert part.check is not None
    assert part.check.verdict is Verdict.UNKNOWN
    assert (part.counts.requests, part.counts.unverified) == (2, 1)
    assert part_of(DEPLOYMENT, left, look_at_outputs(left), ()).check is None
