"""Outputs that have both a teacher forcing and a reference, on histories made by hand from numpy's noise."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, prompt_of, run

from harness.history import Choice, Ended, Entry, History, Outcome, RunEnded, Sent, TokenLogprob
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
    cut = replace(choice, token_ids=choice.token_ids[:12], logprobs=choice.logprobs[:12], finish_reason="stop")
    return replace(ended, choices=(cut,))


def same(ended: Ended) -> Ended:
    return ended


def of(history: History) -> tuple[Verdict, str]:
    check = outputs(DEPLOYMENT, history)
    return check.verdict, next((finding.text for finding in check.findings if finding.subject == WHO), "")


def test_equal_tokens_are_right() -> None:
    assert of(with_reference(same)) == (Verdict.VALID, "")


def test_a_first_difference_at_a_margin_within_the_noise_is_a_tie() -> None:
    plain, tied = count_outputs(with_reference(same)), count_outputs(with_reference(other_token(0.005)))
    assert of(with_reference(other_token(0.005)))[0] is Verdict.VALID
    assert (tied.mismatch, tied.unverified, tied.requests) == (0, 0, plain.requests)
    assert tied.tie == plain.tie + 1


def test_a_first_difference_at_a_larger_margin_is_wrong() -> None:
    verdict, text = of(with_reference(other_token(1.5)))
    assert verdict is Verdict.INVALID
    assert "first differs from its reference at output token 6" in text
    assert "margin of the reference there is 1.5000 nats" in text


def test_an_answer_that_ends_elsewhere_is_wrong_though_every_token_is_right() -> None:
    verdict, text = of(with_reference(shorter))
    assert verdict is Verdict.INVALID
    assert "20 tokens where its reference has 12" in text


def test_drift_counts_though_every_token_equals_the_references() -> None:
    def drifted(name: str, readings: Readings) -> None:
        if name == WHO:
            readings.served -= 0.5
            readings.rival -= 0.5

    verdict, text = of(with_reference(same, run(gaussian(SIGMA), seed=1, damage=drifted)))
    assert verdict is Verdict.INVALID
    assert "log-probabilit" in text


def test_another_prompt_than_was_asked_is_wrong_whatever_was_answered() -> None:
    history = with_reference(same)
    reported = (7, 7, *prompt_of(WHO)[2:])
    changed = [
        replace(e, prompt_token_ids=reported) if isinstance(e, Ended) and e.request_id == f"{WHO}-reference" else e
        for e in history.entries
    ]
    verdict, text = of(History(tuple(changed)))
    assert verdict is Verdict.INVALID
    assert "another prompt than was sent" in text
    assert "from token 1 on" in text


def test_a_reference_that_failed_leaves_its_output_unverified() -> None:
    verdict, text = of(with_reference(lambda ended: replace(ended, outcome=Outcome.INFO, cause="500")))
    assert (verdict, text) == (Verdict.UNKNOWN, "its reference did not complete: 500")


def test_an_echo_whose_text_is_another_is_wrong() -> None:
    def echoed(history: History) -> History:
        return History(
            tuple(
                replace(e, request=replace(e.request, sampling=replace(e.request.sampling, echo=True)))
                if isinstance(e, Sent) and e.request.request_id == WHO
                else e
                for e in history.entries
            )
        )

    def other_text(ended: Ended) -> Ended:
        return replace(ended, choices=(replace(ended.choices[0], text="something else"),))

    assert of(echoed(with_reference(same)))[0] is Verdict.VALID
    verdict, text = of(echoed(with_reference(other_text)))
    assert (verdict, "its text is not the text of its reference" in text) == (Verdict.INVALID, True)


def test_without_a_floor_a_difference_is_not_excused_by_a_margin() -> None:
    history = with_reference(other_token(0.005), run(gaussian(SIGMA), seed=1, controls=0))
    assert outputs(DEPLOYMENT, history).verdict is not Verdict.VALID


# Answers of a wrong shape


def answered(sampling: Sampling, *choices: Choice, reported: tuple[int, ...] | None = None) -> tuple[Verdict, str]:
    """The verdict on a run in which WHO has these choices, and the text of its finding."""
    history = run(gaussian(SIGMA), seed=1)
    entries = []
    for entry in history.entries:
        if isinstance(entry, Sent) and entry.request.request_id == WHO:
            entries.append(replace(entry, request=replace(entry.request, sampling=sampling)))
        elif isinstance(entry, Ended) and entry.request_id == WHO:
            entries.append(replace(entry, choices=choices or entry.choices, prompt_token_ids=reported))
        else:
            entries.append(entry)
    return of(History(tuple(entries)))


def test_an_answer_that_ends_with_reason_length_too_early_is_wrong() -> None:
    assert answered(Sampling(max_tokens=20))[0] is Verdict.VALID
    verdict, text = answered(Sampling(max_tokens=30))
    assert verdict is Verdict.INVALID
    assert text.startswith("it ended with finish_reason 'length' after 20 of 30 requested tokens")


def test_fewer_choices_than_were_asked_are_wrong() -> None:
    verdict, text = answered(Sampling(max_tokens=20, n=3))
    assert verdict is Verdict.INVALID
    assert text.startswith("it has 1 choices, and 3 were requested")


def test_an_answer_to_another_prompt_is_wrong() -> None:
    assert answered(Sampling(max_tokens=20), reported=prompt_of(WHO))[0] is Verdict.VALID
    verdict, text = answered(Sampling(max_tokens=20), reported=(1, 2))
    assert verdict is Verdict.INVALID
    assert "another prompt than was sent" in text


# Sampled tokens


@pytest.mark.parametrize(
    ("temperature", "regret", "verdict"),
    [(0.01, 0.2, Verdict.VALID), (0.01, 2.0, Verdict.INVALID), (0.0, 0.6, Verdict.INVALID), (0.5, 2.0, Verdict.VALID)],
)
def test_a_sampled_token_may_be_behind_by_what_its_temperature_allows(
    temperature: float, regret: float, verdict: Verdict
) -> None:
    def behind(name: str, readings: Readings) -> None:
        if name == WHO:
            for one, rival in ((readings.served, readings.rival), (readings.forced, readings.forced_rival)):
                rival[4] = one[4] + regret

    history = run(gaussian(SIGMA), seed=1, damage=behind)
    sampling = Sampling(max_tokens=20, logprobs=2, temperature=temperature)
    drawn = [
        replace(e, request=replace(e.request, sampling=sampling))
        if isinstance(e, Sent) and e.request.request_id == WHO
        else e
        for e in history.entries
    ]
    assert of(History(tuple(drawn)))[0] is verdict


def test_sampled_tokens_without_log_probabilities_are_unverified_unless_they_are_the_best() -> None:
    def bare(ended: Ended) -> Ended:
        return replace(ended, choices=tuple(replace(choice, logprobs=()) for choice in ended.choices))

    def behind(name: str, readings: Readings) -> None:
        if name == WHO:
            readings.forced[4] = readings.forced_rival[4] - 0.05

    for damage, verdict in ((lambda _name, _readings: None, Verdict.VALID), (behind, Verdict.UNKNOWN)):
        history = run(gaussian(1e-5), seed=1, damage=damage)
        entries = [
            replace(e, request=replace(e.request, sampling=Sampling(max_tokens=20, temperature=0.5)))
            if isinstance(e, Sent) and e.request.request_id == WHO
            else bare(e)
            if isinstance(e, Ended) and e.request_id == WHO
            else e
            for e in history.entries
        ]
        assert outputs(DEPLOYMENT, History(tuple(entries))).verdict is verdict


def test_an_output_without_forcing_and_reference_is_unverified_in_its_scenarios_part() -> None:
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
