"""The owner of a wrong output, found by shared runs of tokens and by owner tests, on histories made by hand."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, forcing, gaussian, operations, prompt_of, read

from harness.history import Entry, History, RunEnded
from harness.scenario import Route
from harness.verdict import Verdict
from harness.verify.judging import outputs
from harness.verify.judging.shared_runs import coincidence_probability, shared_run

VICTIM, OWNER = "load-05", "load-03"
OTHERS = [f"load-{number:02d}" for number in range(32) if f"load-{number:02d}" != VICTIM]


def wrong_answer(rng: np.random.Generator) -> Readings:
    """An answer whose tokens are all five nats behind the best ones."""
    readings = read(rng, gaussian(1e-5))
    readings.forced -= 5.0
    return readings


def history(victim: Readings, *more: Entry, seed: int = 0, owner: Readings | None = None) -> History:
    """Thirty-one right outputs, a wrong one, and control requests."""
    rng = np.random.default_rng(seed)
    entries = list(operations(VICTIM, victim, Route.PROXY))
    for name in OTHERS:
        readings = read(rng, gaussian(1e-5))
        entries += operations(name, owner if owner and name == OWNER else readings, Route.PROXY)
    for number in range(32):
        control = read(rng, gaussian(1e-5))
        entries += operations(f"control-{number}", control, Route.DECODE, about=OTHERS[0])
    return History((*entries, *more, RunEnded(9.0)))


def under(victim: Readings, owner: str, *, right: bool) -> Iterator[Entry]:
    """The victim's output forced under another request's prompt, with the last token of its own prompt."""
    forced, rival = (victim.served, victim.rival) if right else (victim.served - 6.0, victim.served - 0.5)
    readings = replace(victim, forced=forced, forced_rival=rival)
    yield from forcing(VICTIM, (*prompt_of(owner)[:-1], prompt_of(VICTIM)[-1]), readings, owner)


def under_eight(victim: Readings, *owners: str) -> list[Entry]:
    """The victim's output forced under the prompts of eight requests; it is right under those of ``owners``."""
    return [entry for name in OTHERS[:8] for entry in under(victim, name, right=name in owners)]


def first_text(whole: History) -> str:
    return outputs(DEPLOYMENT, whole).findings[0].text


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(42)


def test_an_answer_that_shares_a_run_with_another_answer_is_reported_with_its_owner(rng: np.random.Generator) -> None:
    victim, owner = wrong_answer(rng), read(rng, gaussian(1e-5))
    victim.tokens = [*victim.tokens[:12], *owner.tokens[:8]]
    check = outputs(DEPLOYMENT, history(victim, owner=owner))
    assert check.verdict is Verdict.INVALID
    first = check.findings[0]
    assert first.subject == VICTIM
    assert first.text.startswith(
        f"was answered with {OWNER}'s KV: 8 tokens in a row are from that request's answer (probability by"
    )
    assert f"{VICTIM}: was answered with {OWNER}'s KV" in check.summary


def test_a_common_phrase_names_no_owner(rng: np.random.Generator) -> None:
    victim, owner = wrong_answer(rng), read(rng, gaussian(1e-5))
    victim.tokens = [*victim.tokens[:18], *owner.tokens[:2]]
    assert "answered with" not in first_text(history(victim, owner=owner))


def test_the_prompt_under_which_every_token_is_the_best_is_the_owner(rng: np.random.Generator) -> None:
    victim = wrong_answer(rng)
    text = first_text(history(victim, *under_eight(victim, OWNER)))
    assert text.startswith(f"was answered with {OWNER}'s KV: all of its 20 tokens continue that request's prompt")


def test_an_output_that_is_right_under_no_prompt_has_no_owner(rng: np.random.Generator) -> None:
    victim = wrong_answer(rng)
    assert "answered with" not in first_text(history(victim, *under_eight(victim)))


def test_an_output_that_is_right_under_every_prompt_has_no_owner(rng: np.random.Generator) -> None:
    """An end token that continues any prompt shows no owner."""
    victim = wrong_answer(rng)
    assert "answered with" not in first_text(history(victim, *under_eight(victim, *OTHERS)))


def test_the_longest_shared_run_is_found_at_any_position() -> None:
    assert shared_run((1, 2, 3, 4, 9), (7, 2, 3, 4, 8, 1)) == range(1, 4)
    assert not shared_run((1, 2), (3, 4))
    assert not shared_run((), (1,))
    assert shared_run((5, 5, 5), (5, 5)) == range(2)


def test_the_coincidence_probability_is_the_share_of_equal_pairs_or_of_what_follows_them() -> None:
    rng = np.random.default_rng(1)
    answers = [tuple(int(t) for t in rng.integers(0, 50, 20)) for _ in range(40)]
    assert coincidence_probability(answers) == pytest.approx(1 / 50, rel=0.5)
    phrases = [
        tuple(10 * int(start) + step for start in rng.integers(0, 20, 5) for step in range(4)) for _ in range(40)
    ]
    # Within a phrase the next token is certain.
    assert coincidence_probability(phrases) > 0.5


LOOP = [49, 46] * 10
"""Tokens of "1. 1. 1. ...", which prompts of many kinds end in."""


def in_a_loop(rng: np.random.Generator, *, behind: float) -> Readings:
    """An answer that is a loop; under its own prompt its first two tokens are ``behind`` nats behind the best."""
    readings = read(rng, gaussian(1e-5))
    readings.tokens = list(LOOP)
    readings.forced[:2] -= behind
    return readings


def test_a_loop_that_is_the_right_answer_to_another_prompt_names_no_owner(rng: np.random.Generator) -> None:
    """Damage can throw an answer into a loop, and another request may rightly be in the same loop."""
    owner = in_a_loop(rng, behind=0.0)
    findings = outputs(DEPLOYMENT, history(in_a_loop(rng, behind=9.0), owner=owner)).findings
    assert findings[0].subject == VICTIM
    assert "answered with" not in findings[0].text


def test_a_loop_that_fits_one_prompt_alone_names_no_owner(rng: np.random.Generator) -> None:
    """Even if no other tested prompt ends in the loop: it has only two different tokens, however long it is."""
    victim = in_a_loop(rng, behind=9.0)
    assert "answered with" not in first_text(history(victim, *under_eight(victim, OWNER)))


@pytest.mark.parametrize("period", [3, 5, 8])
def test_only_the_beginning_of_a_list_that_continues_by_itself_is_informative(
    rng: np.random.Generator, period: int
) -> None:
    """A list continues as it began under any prompt: its later tokens are the best ones everywhere."""
    victim, pattern = read(rng, gaussian(1e-5)), list(range(200, 200 + period))
    victim.tokens = (pattern * 20)[: len(victim.tokens)]
    victim.forced[:2] -= 9.0
    owner = replace(victim, forced=victim.served.copy())
    assert "answered with" not in first_text(history(victim, owner=owner))


def test_boilerplate_in_the_answer_to_a_third_prompt_names_no_owner(rng: np.random.Generator) -> None:
    victim, owner = wrong_answer(rng), read(rng, gaussian(1e-5))
    victim.tokens = [*victim.tokens[:8], *owner.tokens[:12]]
    third = operations("third", read(rng, gaussian(1e-5)), Route.PROXY)
    alone = first_text(history(victim, *third, owner=owner))
    assert f"was answered with {OWNER}'s KV" in alone
    same = replace(read(rng, gaussian(1e-5)), tokens=list(owner.tokens))
    shared = first_text(history(victim, *operations("third", same, Route.PROXY), owner=owner))
    assert "answered with" not in shared


def test_an_answer_that_also_continues_its_own_prompt_names_no_owner(rng: np.random.Generator) -> None:
    """The first token is wrong; the others are the best ones under its own prompt, too."""
    victim, owner = read(rng, gaussian(1e-5)), read(rng, gaussian(1e-5))
    victim.forced[0] -= 9.0
    victim.tokens = list(owner.tokens)
    assert "answered with" not in first_text(history(victim, owner=owner))


def test_an_owner_is_not_named_if_too_few_other_prompts_were_tested(rng: np.random.Generator) -> None:
    victim = wrong_answer(rng)
    tested = [entry for name in (OWNER, OTHERS[0]) for entry in under(victim, name, right=name == OWNER)]
    assert "answered with" not in first_text(history(victim, *tested))


def test_the_probability_is_reported_with_the_owner(rng: np.random.Generator) -> None:
    victim = wrong_answer(rng)
    text = first_text(history(victim, *under_eight(victim, OWNER)))
    assert "20 of them continue none of 8 other prompts (probability by chance: " in text
