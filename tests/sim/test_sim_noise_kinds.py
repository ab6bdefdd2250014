"""Each kind of noise has the distribution that it is named for, and moves logits only: all else follows from them."""

import math
import random
import statistics
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim_transit import through

from harness.errors import UsageError
from harness.scenario import Endpoint
from harness.sim import KINDS, SimConfig, SimPair
from harness.sim.language import Language, mix
from harness.sim.logit_noise import (
    BATCH_SIGMA,
    MIXTURE_SIGMA,
    MOVES,
    STUDENT_SCALE,
    NoisyDistribution,
    Pass,
    normal,
    student_t,
    to_bfloat16,
)
from harness.sim.noise import Noise, RequestNoise
from harness.sim.words import EOS, FIRST_WORD

C = Endpoint.COMPLETIONS
ON_LOGITS = sorted(MOVES)
LANGUAGE = Language(4096, FIRST_WORD, EOS)
DRAWS = 200_000


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(8)  # noqa: S311 - seeded test data
    return [[rng.randrange(FIRST_WORD, 4096) for _ in range(rng.randrange(2, 40))] for _ in range(count)]


def pair_of(kind: str, **fields: Any) -> SimPair:
    return SimPair(SimConfig(sim_noise=kind, eos_rate=0.0, **fields), lambda: 0.0)


def asked(pair: SimPair, prompt: list[int], name: str, **fields: Any) -> dict[str, Any]:
    """The choice that decode answers with, after a transfer."""
    body = {"prompt": prompt, "max_tokens": 20, "return_token_ids": True, "logprobs": 5} | fields
    status, answer = through(pair, body, name)
    assert status == 200
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def forced(pair: SimPair, tokens: list[int], name: str) -> list[dict[str, Any]]:
    """The prompt's own log-probabilities and the best token's, from the second token on."""
    body = {"prompt": tokens, "max_tokens": 1, "prompt_logprobs": 1, "cache_salt": name}
    entries: list[dict[str, Any]] = pair.decode.handle(C, body, name)[1]["choices"][0]["prompt_logprobs"][1:]
    return entries


def errors(kind: str, passes: int, positions: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Errors of one logit of 0 nats that is 12 above the level; one row for each pass."""
    move = MOVES[kind]
    rows = [
        [Pass(mix(key), move).moved(position, [(700, 0.0)], 12.0)[0][1] for position in range(positions)]
        for key in range(passes)
    ]
    return np.array(rows)


# --- the distributions ---


def test_normal_errors_are_normal() -> None:
    drawn = sorted(normal(mix(number)) for number in range(DRAWS))
    exact = statistics.NormalDist()
    distance = max(abs(exact.cdf(value) - rank / DRAWS) for rank, value in enumerate(drawn))
    # Kolmogorov's distance is above 1.63 / sqrt(n) for one sample in 100.
    assert distance < 1.63 / math.sqrt(DRAWS)


def t3_cdf(x: float) -> float:
    """Student's distribution with 3 degrees of freedom, in closed form."""
    u = x / math.sqrt(3)
    return 0.5 + (u / (1 + u * u) + math.atan(u)) / math.pi


def test_student_errors_have_three_degrees_of_freedom_and_the_tail_of_it() -> None:
    drawn = sorted(student_t(mix(number)) for number in range(DRAWS))
    assert max(abs(t3_cdf(value) - rank / DRAWS) for rank, value in enumerate(drawn)) < 1.63 / math.sqrt(DRAWS)
    for far in (5.0, 10.0, 20.0):
        expected = 2 * (1 - t3_cdf(far)) * DRAWS
        beyond = sum(abs(value) > far for value in drawn)
        assert abs(beyond - expected) < 4 * math.sqrt(expected)
    # A normal error goes as far as this in none of a million times a million draws.
    assert max(drawn) > 20.0


def test_student_errors_of_logits_have_the_stated_scale() -> None:
    moved = np.abs(errors("student", 40, 500)) / STUDENT_SCALE
    # Half of the absolute values lie below the distribution's upper quartile, which tables give as 0.765.
    assert np.mean(moved < 0.765) == pytest.approx(0.5, abs=0.015)


def test_in_a_mixture_some_positions_and_some_passes_are_noisier() -> None:
    leading = [(token, 0.0) for token in range(12)]
    passes = [Pass(mix(key), MOVES["mixture"]) for key in range(2000)]
    moved = [[[logit for _, logit in one.moved(at, leading, 12.0)] for at in range(6)] for one in passes]
    # One number for each pass and position: how far its twelve errors go, in ordinary standard deviations.
    spread = np.sqrt(np.mean(np.square(moved), axis=2)) / MIXTURE_SIGMA
    loud = np.median(spread, axis=1) > 3.0
    assert np.mean(loud) == pytest.approx(0.02, abs=0.01)
    assert np.median(spread[loud]) == pytest.approx(5.0, rel=0.1)
    wild = spread[~loud] > 4.0
    assert np.mean(wild) == pytest.approx(0.02, abs=0.004)
    assert np.median(spread[~loud][wild]) == pytest.approx(10.0, rel=0.1)
    assert np.median(spread[~loud][~wild]) == pytest.approx(1.0, rel=0.05)


def bfloat16(value: float) -> float:
    """Round to bfloat16 by the bits of a 32-bit float: half of the last kept bit is added, ties to even, 16 are cut."""
    [bits] = struct.unpack("<I", struct.pack("<f", value))
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    [result] = struct.unpack("<f", struct.pack("<I", rounded))
    return float(result)


@given(st.floats(-3e4, 3e4, width=32).filter(lambda value: abs(value) > 1e-30))
def test_numbers_are_rounded_as_by_the_bits_of_a_bfloat16(value: float) -> None:
    assert to_bfloat16(value) == bfloat16(value)


def test_a_bfloat16_tie_goes_to_the_even_neighbour() -> None:
    # Between 8 and 16 a step is 1/16, between 16 and 32 it is 1/8.
    assert [to_bfloat16(value) for value in (8.03125, 8.09375, 16.0625, 16.1875, 0.0)] == [8.0, 8.125, 16.0, 16.25, 0.0]


def test_quantised_logits_lie_on_the_steps_of_their_magnitude() -> None:
    steps = set()
    for state in range(300):
        exact = LANGUAGE.distribution(mix(state))
        for token, moved in Pass(mix(state), MOVES["quantised"]).moved(7, exact.ranking(), exact.level):
            logit = moved + exact.level
            nearest = bfloat16(logit)
            # Less the rounding of double precision, where the level is added and taken away.
            assert logit == pytest.approx(nearest, abs=1e-12)
            step = 2.0 ** math.floor(math.log2(abs(nearest))) / 128
            true = exact.look_up(token)[0] + exact.level
            assert abs(nearest - true) <= step / 2 + 6 * BATCH_SIGMA
            steps.add(step)
    assert {1 / 16, 1 / 8} <= steps


def test_quantised_logits_tie_and_ranks_are_counted_as_vllm_counts_them() -> None:
    tied = 0
    for state in range(3000):
        noise = Pass(mix(state), MOVES["quantised"])
        seen = NoisyDistribution(LANGUAGE.distribution(mix(state)), noise, 3)
        first, second, margin = seen.best()
        if margin == 0.0:
            tied += 1
            assert first < second, "the lowest token id is served"
            assert seen.look_up(first)[1] == seen.look_up(second)[1] >= 2
    # Margins have density 1 near 0, and steps are 1/16 or 1/8: a margin of less than half a step, or so, is a tie.
    assert 0.02 < tied / 3000 < 0.15


# --- all follows from the logits ---


@pytest.mark.parametrize("kind", ON_LOGITS)
def test_a_noisy_distribution_is_consistent(kind: str) -> None:
    for state in range(300):
        exact = LANGUAGE.distribution(mix(state))
        seen = NoisyDistribution(exact, Pass(mix(state + 1), MOVES[kind]), 9)
        ranking = seen.ranking()
        logprobs = [logprob for _, logprob in ranking]
        assert logprobs == sorted(logprobs, reverse=True)
        assert {token for token, _ in ranking} == {token for token, _ in exact.ranking()}
        assert seen.best()[0] == ranking[0][0]
        assert seen.top_logprob() == ranking[0][1]
        assert seen.best()[2] == ranking[0][1] - ranking[1][1]
        outside = next(token for token in range(FIRST_WORD, 4096) if token not in dict(ranking))
        for token, logprob in [*ranking, (outside, seen.look_up(outside)[0])]:
            assert seen.look_up(token)[0] == logprob
        # The tail's probability before the softmax is the exact one; the softmax divides all by one sum.
        tail = 1 - sum(math.exp(logprob) for _, logprob in exact.ranking())
        moved = Pass(mix(state + 1), MOVES[kind]).moved(9, exact.ranking(), exact.level)
        total = math.log(sum(math.exp(logit) for _, logit in moved) + tail)
        assert dict(moved)[ranking[0][0]] - total == pytest.approx(ranking[0][1], abs=1e-12)


@pytest.mark.parametrize("kind", ON_LOGITS)
def test_the_served_token_is_the_best_of_the_reported_ones(kind: str) -> None:
    pair = pair_of(kind)
    for index, prompt in enumerate(prompts(60)):
        choice = asked(pair, prompt, f"r{index}", return_tokens_as_token_ids=True)
        for token, top in zip(choice["token_ids"], choice["logprobs"]["top_logprobs"], strict=True):
            assert top[f"token_id:{token}"] == max(top.values())


@pytest.mark.parametrize("kind", ON_LOGITS)
def test_answers_flip_and_forcings_see_it(kind: str) -> None:
    """As many answers differ as on real GPUs, most log-probabilities differ by little, and no KV is wrong."""
    pair = pair_of(kind, audit_always=True)
    changed, behind, drifts = 0, 0, []
    asked_for = prompts(130)
    for index, prompt in enumerate(asked_for):
        choice = asked(pair, prompt, f"r{index}")
        output = choice["token_ids"]
        changed += output != asked(pair, prompt, f"again{index}")["token_ids"]
        entries = forced(pair, [*prompt, *output], f"t{index}")[len(prompt) - 1 :]
        own = [entry[str(token)]["logprob"] for token, entry in zip(output, entries, strict=True)]
        best = [max(other["logprob"] for other in entry.values()) for entry in entries]
        behind += any(high > low for high, low in zip(best, own, strict=True))
        drifts += [abs(a - b) for a, b in zip(own, choice["logprobs"]["token_logprobs"], strict=True)]
    assert 0.06 < changed / len(asked_for) < 0.28
    assert 0.04 < behind / len(asked_for) < 0.25
    assert 0.0 < statistics.mean(drifts) < 0.03
    assert sum(drift > 0.1 for drift in drifts) / len(drifts) < 0.01
    assert not pair.ledger.wrong


# --- each pass draws its own ---


def first_logprobs(answer: dict[str, Any]) -> Any:
    return answer["choices"][0]["logprobs"]["top_logprobs"][0]


@pytest.mark.parametrize("kind", ON_LOGITS)
def test_prefill_and_decode_differ_on_the_first_token(kind: str) -> None:
    pair = pair_of(kind)
    differ, flipped = 0, 0
    asked_for = prompts(300)
    for index, prompt in enumerate(asked_for):
        body = {"prompt": prompt, "max_tokens": 1, "logprobs": 5, "return_token_ids": True, "cache_salt": f"s{index}"}
        p, d = (server.handle(C, body, f"r{index}")[1] for server in (pair.prefill, pair.decode))
        differ += first_logprobs(p) != first_logprobs(d)
        flipped += p["choices"][0]["token_ids"] != d["choices"][0]["token_ids"]
    assert differ > 0.5 * len(asked_for)
    assert 0 < flipped < 0.1 * len(asked_for)


@pytest.mark.parametrize("kind", ON_LOGITS)
def test_another_id_draws_other_errors_and_the_same_id_the_same(kind: str) -> None:
    prompt = prompts(1)[0]
    first, other, again = (asked(pair_of(kind), prompt, name)["logprobs"] for name in ("a", "b", "a"))
    assert first != other
    assert first == again
    pair = pair_of(kind)
    asked(pair, prompts(2)[1], "before")
    assert asked(pair, prompt, "a")["logprobs"] == first, "errors do not depend on other requests"
    assert forced(pair, prompt, "x") != forced(pair, prompt, "y")
    assert asked(pair_of(kind, seed=1), prompt, "a")["logprobs"] != first


def test_none_has_no_noise_and_usual_is_the_default() -> None:
    quiet = pair_of("none")
    for index, prompt in enumerate(prompts(40)):
        choice = asked(quiet, prompt, f"r{index}")
        assert choice["logprobs"] == asked(quiet, prompt, f"again{index}")["logprobs"]
    assert SimConfig().sim_noise == "usual"
    assert RequestNoise.of(Noise(), 0, "a") == RequestNoise.of(Noise(), 0, "a", "usual", "decode-0")


def test_an_unknown_kind_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="'cauchy': give one of usual, none, student, mixture, quantised"):
        SimConfig(sim_noise="cauchy")
    assert KINDS == ("usual", "none", "student", "mixture", "quantised")
