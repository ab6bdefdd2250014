"""Owners told by the log-probabilities of an answer's later tokens, which many prompts continue with the same words."""

import json
import lzma
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Floats, Readings, forcing, gaussian, operations, prompt_of, read, with_end

from harness.history import Choice, Ended, Entry, History, Named, Operation, Outcome, RunEnded, Sent, TokenLogprob
from harness.scenario import Purpose, Request, Route, Sampling
from harness.verify.judging import outputs
from harness.verify.judging.chance_match import repetitions
from harness.verify.judging.first_token import distance
from harness.verify.judging.forcing import ForcedTokens, forcings
from harness.verify.judging.later_tokens import LaterTokens, Usual

VICTIM, OWNER, TWIN = "load-05", "load-03", "load-00"
OTHERS = [f"load-{number:02d}" for number in range(32) if f"load-{number:02d}" != VICTIM]
CANDIDATES = OTHERS[:8]
NOISE = 0.02
"""Of first tokens, nats: so much that they alone name nobody."""
CLEARLY, TOKENS = 0.01, 20
"""Nats, far beyond the noise of later tokens, whose limit is 2e-4 here."""


def vector_of(name: str) -> Named:
    rng = np.random.default_rng(list(map(ord, name)))
    return tuple((token, float(value)) for token, value in enumerate(rng.normal(scale=1.5, size=5) - 4.0, 40))


def near(vector: Named, by: float) -> Named:
    return tuple((token, value + by * (-1) ** token) for token, value in vector)


def numbers_of(name: str) -> Floats:
    """Log-probability and margin of each token of the wrong answer under a prompt; all are the best ones there."""
    rng = np.random.default_rng([9, *map(ord, name)])
    return np.stack([-0.1 - rng.exponential(0.8, TOKENS), 0.1 + rng.exponential(1.5, TOKENS)], axis=1)


def changed(numbers: Floats, *places: int, margin: bool = False) -> Floats:
    """Other numbers at these positions."""
    moved = numbers.copy()
    moved[list(places), int(margin)] += CLEARLY
    return moved


def answered(tokens: list[int]) -> Readings:
    """The wrong answer. It has the owner's numbers, and its first token is wrong under its own prompt."""
    numbers, own = numbers_of(OWNER), numbers_of(VICTIM)
    forced = own[:, 0] - 5.0 * (np.arange(TOKENS) == 0)
    served = numbers[:, 0] + 1e-5
    return Readings(served, served - numbers[:, 1], forced, own[:, 0] - own[:, 1], tokens)


def history(victim: Readings, under: Mapping[str, Floats | None], first: Mapping[str, Named] | None = None) -> History:
    """Thirty-one right outputs and a wrong one.

    ``under``: the numbers of its tokens under the candidates that were tested, None for those whose vector alone was
    asked for. ``first``: other first tokens than the candidate's own.
    """
    rng = np.random.default_rng(1)
    entries = list(operations(VICTIM, victim, Route.PROXY))
    for name in OTHERS:
        entries += operations(name, read(rng, gaussian(1e-5)), Route.PROXY)
    for number in range(32):
        entries += operations(f"control-{number}", read(rng, gaussian(1e-5)), Route.DECODE, about=OTHERS[0])
    for name, numbers in under.items():
        entries += asked_about(victim, name, (first or {}).get(name, vector_of(name)), numbers)
    past = History((*entries, RunEnded(9.0)))
    for name in OTHERS:
        past = with_end(past, name, first_logprobs=near(vector_of(name), NOISE), prefill_first=vector_of(name))
    return with_end(past, VICTIM, first_logprobs=near(vector_of(OWNER), NOISE / 2), prefill_first=vector_of(VICTIM))


def asked_about(victim: Readings, name: str, vector: Named, numbers: Floats | None) -> Iterator[Entry]:
    test, prompt = f"{VICTIM}-like-{name}", (*prompt_of(name)[:-1], prompt_of(VICTIM)[-1])
    request = Request(
        test, prompt, Sampling(max_tokens=1), Route.PREFILL, purpose=Purpose.OWNER_TEST, about=VICTIM, owner=name
    )
    yield Sent(3.0, request, "load", "owners", 3.0)
    yield Ended(4.0, test, Outcome.OK, status=200, choices=(Choice((40,)),), first_logprobs=vector)
    if numbers is not None:
        logprob = numbers[:, 0].copy()
        yield from forcing(VICTIM, prompt, replace(victim, forced=logprob, forced_rival=logprob - numbers[:, 1]), name)


def everyone(without: Collection[str] = ()) -> dict[str, Floats | None]:
    """All candidates, each with numbers of its own."""
    return {name: numbers_of(name) for name in CANDIDATES if name not in without}


def named(past: History) -> str | None:
    """The owner that is named."""
    return outputs(DEPLOYMENT, past).findings[0].owner


@pytest.fixture
def victim() -> Readings:
    return answered(list(range(200, 200 + TOKENS)))


ALIKE = {TWIN: near(vector_of(OWNER), NOISE / 4)}
"""The first token of a prompt that shares its whole ending with the owner's."""
ALL = range(1, TOKENS)


def test_numbers_name_the_owner_of_an_answer_that_every_prompt_continues(victim: Readings) -> None:
    assert named(history(victim, everyone())) == OWNER


def test_nobody_is_named_if_the_owner_was_not_tested(victim: Readings) -> None:
    assert named(history(victim, everyone(without=[OWNER]))) is None


@pytest.mark.parametrize("place", [1, TOKENS // 2, TOKENS - 1])
@pytest.mark.parametrize("margin", [False, True])
def test_one_token_with_another_number_clears_a_candidate(victim: Readings, place: int, margin: bool) -> None:
    """It shares its whole ending with the owner, which was not tested."""
    under = everyone(without=[OWNER])
    cleared = history(victim, {**under, TWIN: changed(numbers_of(OWNER), place, margin=margin)}, ALIKE)
    assert named(cleared) is None
    # Without that token it would be accused.
    assert named(history(victim, {**under, TWIN: numbers_of(OWNER)}, ALIKE)) == TWIN


def test_of_two_prompts_with_the_same_ending_the_one_with_the_same_numbers_is_named(victim: Readings) -> None:
    other = changed(numbers_of(OWNER), *ALL)
    assert named(history(victim, {**everyone(), TWIN: other}, ALIKE)) == OWNER


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(numbers_of(OWNER), id="both agree within the noise"),
        pytest.param(changed(numbers_of(OWNER), 7), id="one token is too little evidence"),
        pytest.param(None, id="the other was not looked at"),
    ],
)
def test_of_two_prompts_with_the_same_ending_neither_is_named(victim: Readings, numbers: Floats | None) -> None:
    assert named(history(victim, {**everyone(), TWIN: numbers}, ALIKE)) is None


def test_repeated_tokens_show_no_owner_and_yet_clear_a_candidate() -> None:
    loop = answered([49, 46] * (TOKENS // 2))
    assert named(history(loop, everyone())) is None
    ending = answered([*range(200, 216), 200, 201, 202, 203])
    assert named(history(ending, everyone())) == OWNER
    assert named(history(ending, {**everyone(), OWNER: changed(numbers_of(OWNER), TOKENS - 1)})) is None


def test_numbers_of_a_loop_that_goes_on_from_the_prompt_show_no_owner() -> None:
    """Once it does, its numbers are alike under all prompts that end in it. Only the first seven tokens could tell."""
    under = {name: np.concatenate([numbers_of(name)[:7], numbers_of(OWNER)[7:]]) for name in CANDIDATES}
    new, old = [*range(200, 220)], [*map(ord, OWNER), *range(207, 220)]
    assert named(history(answered(new), under)) == OWNER
    assert named(history(answered(old), under)) is None


def test_the_noise_is_not_known_by_fewer_than_twenty_right_outputs(victim: Readings) -> None:
    past = history(victim, {})
    right = [one for one in past.operations() if one.request.request_id in OTHERS]
    assert LaterTokens.of(right[:19], forcings(past)) is None
    assert LaterTokens.of(right[:20], forcings(past)) is not None


def answer(numbers: Floats, tokens: list[int] | None = None, name: str = "a") -> Operation:
    """An answer as served; NaN where the server told nothing."""
    rows = tuple(
        None if np.isnan(logprob) else TokenLogprob(7, logprob, None if np.isnan(margin) else logprob - margin)
        for logprob, margin in numbers
    )
    choice = Choice(tuple(tokens or [7] * len(rows)), logprobs=rows)
    request = Request(name, (1,), Sampling())
    return Operation(Sent(0.0, request, "s", "p", 0.0), Ended(1.0, name, Outcome.OK, choices=(choice,)))


def under(*numbers: tuple[float, float]) -> ForcedTokens:
    return ForcedTokens(np.array(numbers)[:, 0], np.array(numbers)[:, 1])


def usual(like: int, others: int, pair: tuple[int, int] = (1, 2), who: str = "a") -> Usual:
    """So many tokens with the numbers of those below, all after the same one, and others that are far away."""
    logprobs = np.array([-1.0] * like + [-9.0] * others)
    after = np.arange(like + others) < like + 3
    before, tokens = (np.where(after, token, 0) for token in pair)
    return Usual(logprobs, -logprobs, before, tokens, {who: slice(like + others)})


KNOWN = LaterTokens(np.array([0.1, 0.2]), usual(0, 9999))
"""No right output has a token like those below."""
NO = float("nan")


@pytest.mark.parametrize(
    ("served", "told", "contradicted"),
    [
        ((-1.0, 1.0), (-1.09, 1.19), False),
        ((-1.0, 1.0), (-1.11, 1.0), True),
        ((-1.0, 1.0), (-1.0, 1.21), True),
        # What is not known shows nothing; what is known counts.
        ((NO, NO), (-5.0, 1.0), False),
        ((-1.0, NO), (-1.0, 9.0), False),
        ((-1.0, NO), (-1.11, 1.0), True),
        ((-1.0, 1.0), (-1.0, float("inf")), False),
    ],
)
def test_a_number_beyond_the_noise_contradicts(
    served: tuple[float, float], told: tuple[float, float], contradicted: bool
) -> None:
    assert KNOWN.contradict(answer(np.array([served])), under(told)) is contradicted


@pytest.mark.parametrize(
    ("others", "chance"),
    [
        # Half a limit of noise beside six: twice (0.5 / 6)^2.
        ([(-1.6, 1.0)], 2 * (0.5 / 6) ** 2),
        # The margin alone may be far, and the nearest prompt counts.
        ([(-1.0, 2.2), (-9.0, 9.0)], 2 * (0.5 / 6) ** 2),
        # None counts as farther than two nats, which are twenty limits.
        ([(-9.0, 9.0)], 2 * (0.5 / 20) ** 2),
        # One that is near, unknown or missing shows that any may be.
        ([(-9.0, 9.0), (-1.29, 1.0)], 1.0),
        ([(-9.0, 9.0), (-9.0, float("inf"))], 1.0),
        ([], 1.0),
    ],
)
def test_the_nearest_other_prompt_tells_how_likely_numbers_agree(
    others: list[tuple[float, float]], chance: float
) -> None:
    one = answer(np.array([(-1.0, 1.0)]))
    found = KNOWN.chances(one, under((-1.0, 1.0)), [under(other) for other in others], "b")
    assert found == pytest.approx([chance], abs=1e-9)


def chance_of(known: Usual) -> float:
    """Of the second of two tokens, under the prompt of request b."""
    both = under((-1.0, 1.0), (-1.0, 1.0))
    served = answer(np.array([(-1.0, 1.0)] * 2), [5, 6])
    return float(replace(KNOWN, usual=known).chances(served, both, [under((-9.0, 9.0), (-9.0, 9.0))], "b")[1])


def test_numbers_that_are_usual_show_little() -> None:
    assert chance_of(usual(299, 700)) == 0.6


@pytest.mark.parametrize(
    ("pair", "who", "chance"), [((5, 6), "a", 0.5), ((4, 6), "a", 0.00125), ((5, 6), "b", 0.00125)]
)
def test_numbers_that_are_usual_after_the_same_token_show_little(
    pair: tuple[int, int], who: str, chance: float
) -> None:
    """The candidate's own answer may well have the same numbers."""
    assert chance_of(usual(1, 9999, pair, who)) == pytest.approx(chance)


def test_a_token_that_was_not_forced_under_another_prompt_shows_nothing() -> None:
    one = answer(np.array([(-1.0, 1.0)] * 2))
    found = KNOWN.chances(one, under((-1.0, 1.0), (-1.0, 1.0)), [under((-9.0, 9.0))], "b")
    assert found[0] < 1
    assert found[1] == 1


RECORDED = Path(__file__).parents[1] / "data" / "owners" / "smollm2-foreign.json.xz"


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(lzma.decompress(RECORDED.read_bytes()))


@pytest.fixture(scope="module")
def later(recorded: Any) -> LaterTokens:
    served = [served_as(one, f"right-{number}") for number, one in enumerate(recorded["alike"])]
    return LaterTokens(np.array(recorded["limits"]), Usual.of(served))


def served_as(one: Any, name: str = "a") -> Operation:
    return answer(np.array(one["served"]), one["tokens"], name)


def forced(numbers: list[list[float]]) -> ForcedTokens:
    return under(*((float(logprob), float(margin)) for logprob, margin in numbers))


def chance_of_all(one: Any, chances: Floats) -> float:
    """That the numbers of all tokens but the first agree."""
    shows_nothing = {0, *one["repeated"], *repetitions(tuple(one["tokens"]))}
    return float(np.prod([chance for place, chance in enumerate(chances) if place not in shows_nothing]))


def test_recorded_numbers_contradict_every_prompt_but_the_owners(recorded: Any, later: LaterTokens) -> None:
    """Each decoy stands for a candidate that was taken for the owner."""
    assert len(recorded["wrong"]) == 17
    for one in recorded["wrong"]:
        assert not later.contradict(served_as(one), forced(one["owner"]))
        assert all(later.contradict(served_as(one), forced(decoy)) for decoy in one["decoys"])


def test_recorded_numbers_tell_most_owners_of_answers_that_end_in_loops(recorded: Any, later: LaterTokens) -> None:
    chances = [
        chance_of_all(one, later.chances(served_as(one), forced(one["owner"]), [*map(forced, one["decoys"])], None))
        for one in recorded["wrong"]
    ]
    # The first token's vector multiplies these by 0.02 or less where it tells at all.
    assert sum(chance <= 1e-5 for chance in chances) >= 9


def test_of_recorded_prompts_with_the_same_answer_none_would_be_accused_of_the_other(
    recorded: Any, later: LaterTokens
) -> None:
    """Not even if no decoy were like them: numbers in the same loop agree more often than others."""
    strange, agree = [forced([[-99.0, 99.0]] * 16)], 0
    for number, one in enumerate(recorded["alike"]):
        for index, other in enumerate(recorded["alike"]):
            if index == number or one["tokens"] != other["tokens"]:
                continue
            fits = distance(dict(one["first"]), dict(other["first"])) <= recorded["noise"]
            if not fits or later.contradict(served_as(one), forced(other["served"])):
                continue
            agree += 1
            found = later.chances(served_as(one), forced(other["served"]), strange, f"right-{index}")
            assert chance_of_all({**one, "repeated": other["repeated"]}, found) > 0.01
    assert agree > 50
