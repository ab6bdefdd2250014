"""Whose KV it was: by likeness of answers and by supposition, on histories made by hand."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, forcing, gaussian, operations, prompt_of, read

from harness.checkers.outputs import outputs
from harness.checkers.outputs.ownership import likeness, longest_run
from harness.history import Entry, History, RunEnded
from harness.scenario import Route
from harness.verdict import Verdict

VICTIM, OWNER = "load-05", "load-03"
OTHERS = [f"load-{number:02d}" for number in range(32) if f"load-{number:02d}" != VICTIM]


def wrong_answer(rng: np.random.Generator) -> Readings:
    readings = read(rng, gaussian(1e-5))
    readings.forced -= 5.0  # every token five nats behind
    return readings


def history(victim: Readings, *more: Entry, seed: int = 0, owner: Readings | None = None) -> History:
    """Thirty-one right outputs, a wrong one, and a control arm."""
    rng = np.random.default_rng(seed)
    entries = list(operations(VICTIM, victim, Route.PROXY))
    for name in OTHERS:
        readings = read(rng, gaussian(1e-5))
        entries += operations(name, owner if owner and name == OWNER else readings, Route.PROXY)
    for number in range(32):
        control = read(rng, gaussian(1e-5))
        entries += operations(f"control-{number}", control, Route.DECODE, reference_for=OTHERS[0])
    return History((*entries, *more, RunEnded(9.0)))


def under(victim: Readings, owner: str, *, right: bool) -> Iterator[Entry]:
    """The victim's output after the head of another's prompt and its own last token."""
    forced = victim.served if right else victim.served - 6.0
    told = replace(victim, forced=forced, forced_rival=victim.served - 0.5)
    yield from forcing(VICTIM, (*prompt_of(owner)[:-1], prompt_of(VICTIM)[-1]), told, f"-as-{owner}")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(42)


def test_an_answer_that_is_anothers_is_named_with_its_owner_and_the_chance(rng: np.random.Generator) -> None:
    victim, owner = wrong_answer(rng), read(rng, gaussian(1e-5))
    victim.tokens = [*victim.tokens[:12], *owner.tokens[:8]]
    check = outputs(DEPLOYMENT, history(victim, owner=owner))
    assert check.verdict is Verdict.INVALID
    first = check.findings[0]
    assert first.subject == VICTIM
    assert first.text.startswith(
        f"was answered with {OWNER}'s KV: 8 tokens in a row are that request's answer (by chance"
    )
    assert f"{VICTIM} was answered with {OWNER}'s KV" in check.summary


def test_a_common_phrase_accuses_nobody(rng: np.random.Generator) -> None:
    victim, owner = wrong_answer(rng), read(rng, gaussian(1e-5))
    victim.tokens = [*victim.tokens[:18], *owner.tokens[:2]]
    assert "answered with" not in outputs(DEPLOYMENT, history(victim, owner=owner)).findings[0].text


def test_the_prompt_under_which_every_token_is_the_best_is_the_owner(rng: np.random.Generator) -> None:
    victim = wrong_answer(rng)
    tried = [entry for name in OTHERS[:8] for entry in under(victim, name, right=name == OWNER)]
    first = outputs(DEPLOYMENT, history(victim, *tried)).findings[0]
    assert first.text.startswith(
        f"was answered with {OWNER}'s KV: all of its 20 tokens are what that prompt goes on to"
    )


def test_no_prompt_under_which_it_is_right_is_no_owner(rng: np.random.Generator) -> None:
    victim = wrong_answer(rng)
    tried = [entry for name in OTHERS[:8] for entry in under(victim, name, right=False)]
    assert "answered with" not in outputs(DEPLOYMENT, history(victim, *tried)).findings[0].text


def test_an_output_that_is_right_under_every_prompt_has_no_owner(rng: np.random.Generator) -> None:
    """An end of sequence that any prompt goes on to says nothing of whose KV it was."""
    victim = wrong_answer(rng)
    tried = [entry for name in OTHERS[:8] for entry in under(victim, name, right=True)]
    assert "answered with" not in outputs(DEPLOYMENT, history(victim, *tried)).findings[0].text


def test_the_longest_run_is_found_wherever_it_stands() -> None:
    assert longest_run((1, 2, 3, 4, 9), (7, 2, 3, 4, 8, 1)) == 3
    assert longest_run((1, 2), (3, 4)) == 0
    assert longest_run((), (1,)) == 0
    assert longest_run((5, 5, 5), (5, 5)) == 2


def test_likeness_is_the_share_of_equal_pairs_or_what_follows_them() -> None:
    rng = np.random.default_rng(1)
    answers = [tuple(int(t) for t in rng.integers(0, 50, 20)) for _ in range(40)]
    assert likeness(answers) == pytest.approx(1 / 50, rel=0.5)
    phrases = [
        tuple(10 * int(start) + step for start in rng.integers(0, 20, 5) for step in range(4)) for _ in range(40)
    ]
    assert likeness(phrases) > 0.5  # within a phrase the next token is certain
