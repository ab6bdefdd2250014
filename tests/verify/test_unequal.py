"""An output whose first token alone is not bit for bit prefill's: each of the four rules decides by itself.

All outputs are teacher-forced, and none of the forcings shows more than noise: nothing else makes a run invalid.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
from counted_run import DEPLOYMENT
from first_tokens import NOTHING, repeated, with_first_tokens
from forced_histories import Damage, Readings, gaussian, operations, read, run

from harness.history import Entry, History, Outcome, Sent
from harness.scenario import Condition, Purpose, Route
from harness.verdict import Verdict
from harness.verify.judging import outputs, unconfirmed, wrong_outputs
from harness.verify.judging.unequal import proven_unequal, unequal

VICTIM = "load-abcdefghijkl"
"""Its prompt has a first token and these letters: the first 16 tokens end with the letter j."""
TINY = {VICTIM: 1e-6}
OTHERS = [f"load-{number}" for number in range(15)]
SIXTEEN = (VICTIM, *OTHERS)


def clean(*more: str, salts: Collection[str] = (), damage: Damage = lambda _name, _readings: None) -> History:
    """40 outputs, the victim, and ``more`` outputs with prompts made from their names; ``salts``: salted."""
    rng, noise = np.random.default_rng(5), gaussian(1e-5)
    entries = list(run(noise, outputs=40, damage=damage).entries)
    for name in (VICTIM, *more):
        salt = "another" if name in salts else None
        entries += operations(name, read(rng, noise), Route.PROXY, cache_salt=salt)
    return History(tuple(entries))


def judged(
    history: History,
    controls: Iterable[str] = SIXTEEN,
    apart: Mapping[str, float] = TINY,
    controls_apart: Mapping[str, float] = NOTHING,
) -> History:
    return repeated(with_first_tokens(history, apart), controls, controls_apart)


def test_if_all_rules_hold_the_run_is_invalid_and_the_finding_says_why() -> None:
    history = judged(clean())
    check = outputs(DEPLOYMENT, history)
    assert (check.verdict, wrong_outputs(history)) == (Verdict.INVALID, (VICTIM,))
    (finding,) = check.findings
    assert finding.request == VICTIM
    assert finding.text.startswith(
        "its first token's log-probabilities differ from prefill's by 4e-07 nats, while 40 other outputs and 16 "
        "control outputs (1 of this prompt) are equal to the last bit: its KV is not what prefill computed"
    )
    assert not any("doubtful" in note for note in check.notes)


def doubted(history: History) -> None:
    """The output is listed as doubtful, and the run is valid."""
    check = outputs(DEPLOYMENT, history)
    assert (check.verdict, check.findings, proven_unequal(history)) == (Verdict.VALID, (), {})
    (note,) = (note for note in check.notes if "doubtful" in note)
    assert note.startswith(
        f"1 doubtful, but not counted as wrong: {VICTIM}: its first token's log-probabilities differ"
    )
    assert note.endswith("equal to the last bit (no other evidence shows that these are wrong)")


def test_a_single_control_output_that_differs_makes_all_of_them_count_nothing() -> None:
    for name in (OTHERS[7], VICTIM):
        doubted(judged(clean(), controls_apart={name: 1e-15}))


def test_fifteen_control_outputs_are_too_few() -> None:
    doubted(judged(clean(), SIXTEEN[:15]))


def test_a_quiet_run_needs_no_control_requests_but_those_of_the_prompt_in_question() -> None:
    """They are no random sample, and say nothing about the noise of other prompts."""

    def suspected(entry: Entry) -> Entry:
        if not isinstance(entry, Sent) or entry.request.purpose is not Purpose.CONTROL:
            return entry
        return replace(entry, request=replace(entry.request, condition=Condition.SUSPECT))

    history = judged(clean(), [VICTIM])
    random = {o.request.request_id for o in history.operations() if o.request.request_id.startswith("control-")}
    left = (e for e in history.entries if getattr(getattr(e, "request", e), "request_id", "") not in random)
    doubted(History(tuple(map(suspected, left))))


def test_without_a_control_output_of_its_own_prompt_an_output_does_not_count() -> None:
    doubted(judged(clean(), [*OTHERS, "load-20", "load-21"]))


def test_a_control_output_of_a_shortened_prompt_is_none_of_this_prompt() -> None:
    def shortened(entry: Entry) -> Entry:
        if not isinstance(entry, Sent) or entry.request.request_id != f"{VICTIM}-again":
            return entry
        return replace(entry, request=replace(entry.request, prompt=entry.request.prompt[:-1]))

    history = judged(clean(), (*SIXTEEN, "load-20"))
    doubted(History(tuple(map(shortened, history.entries))))


def test_a_control_output_that_failed_is_none() -> None:
    history = judged(clean())
    doubted(
        History(
            tuple(
                replace(entry, outcome=Outcome.FAIL) if getattr(entry, "request_id", "") == f"{VICTIM}-again" else entry
                for entry in history.entries
            )
        )
    )


def test_an_output_does_not_count_if_another_request_has_its_first_sixteen_tokens() -> None:
    doubted(judged(clean("load-abcdefghijX")))


def test_another_request_with_fifteen_of_them_or_under_another_salt_is_no_reason() -> None:
    assert set(proven_unequal(judged(clean("load-abcdefghiX")))) == {VICTIM}
    twin = "load-abcdefghijX"
    assert set(proven_unequal(judged(clean(twin, salts=(twin,))))) == {VICTIM}


def test_if_more_than_a_tenth_of_the_outputs_differ_none_of_them_counts() -> None:
    four, five = (TINY | dict.fromkeys(OTHERS[:number], 1e-6) for number in (3, 4))
    assert set(proven_unequal(judged(clean(), apart=four))) == {VICTIM, *OTHERS[:3]}
    history = judged(clean(), apart=five)
    check = outputs(DEPLOYMENT, history)
    assert (check.verdict, check.findings, unequal(history)) == (Verdict.VALID, (), ())
    assert not any("doubtful" in note for note in check.notes)


def test_outputs_that_only_control_requests_can_prove_wrong_are_measured_again_before_outputs_that_look_wrong() -> None:
    def damage(name: str, readings: Readings) -> None:
        readings.forced[5] -= 0.02 * (name == "load-3")

    twins = ("load-twins-share-1", "load-twins-share-2")
    history = judged(clean(*twins, damage=damage), (), TINY | {twins[0]: 0.5})
    assert wrong_outputs(history) == ("load-3",)
    assert unconfirmed(history) == (VICTIM, "load-3")
