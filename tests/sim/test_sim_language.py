"""The simulated model depends on every token's KV, agrees with teacher forcing, and has the configured noise."""

import random
import statistics
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sim_transit import through

from harness.scenario import Endpoint
from harness.sim import QUIET, Noise, SimConfig, SimPair
from harness.sim.language import MASK, Language, correct_total, extend, mix
from harness.sim.words import EOS, FIRST_WORD, Tokenizer

C = Endpoint.COMPLETIONS
LANGUAGE = Language(4096, FIRST_WORD, EOS)
tokens = st.lists(st.integers(0, 4095), min_size=1, max_size=40)


@given(tokens, st.integers(0, 39))
def test_computing_in_chunks_gives_the_same_sum(prompt: list[int], first: int) -> None:
    head, tail = prompt[:first], prompt[first:]
    rows, total = extend(0, head, 0)
    more, total = extend(total, tail, len(head))
    assert total == correct_total(prompt) == sum(rows + more) & MASK


@given(tokens, st.data())
def test_every_token_matters(prompt: list[int], data: st.DataObject) -> None:
    changed = list(prompt)
    index = data.draw(st.integers(0, len(prompt) - 1))
    changed[index] = (changed[index] + 1) % 4096
    assert correct_total(changed) != correct_total(prompt)


def test_the_sum_depends_on_the_order_of_tokens_but_not_of_rows() -> None:
    rows, total = extend(0, [300, 301, 302, 303], 0)
    assert sum(rows[2:] + rows[:2]) & MASK == total
    assert correct_total([302, 303, 300, 301]) != total


def test_a_distribution_is_consistent() -> None:
    """Ranks follow the log-probabilities, no token comes twice, and the leading ones stay below 1."""
    for state in range(200):
        following = LANGUAGE.distribution(mix(state))
        ranking = following.ranking()
        words = [token for token, _ in ranking]
        logprobs = [logprob for _, logprob in ranking]
        assert len(set(words)) == len(words) == 8
        assert logprobs == sorted(logprobs, reverse=True)
        assert sum(2.718281828**lp for lp in logprobs) < 1.0
        for rank, (token, logprob) in enumerate(ranking, 1):
            assert following.look_up(token) == (logprob, rank)
        assert abs(ranking[0][1] - ranking[1][1] - following.margin) < 1e-9
        outside = next(word for word in range(FIRST_WORD, 4096) if word not in words)
        logprob, rank = following.look_up(outside)
        assert rank > 8
        assert logprob < logprobs[-1]


def test_margins_are_as_measured() -> None:
    """Median 0.69 nats (ln 2), and 6 % within 0.0625."""
    margins = [LANGUAGE.distribution(mix(state)).margin for state in range(20_000)]
    assert abs(statistics.median(margins) - 0.693) < 0.03
    assert abs(sum(margin < 0.0625 for margin in margins) / 20_000 - 0.0606) < 0.006


@given(st.text(max_size=40))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = Tokenizer(4096)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_are_one_token() -> None:
    tokenizer = Tokenizer(4096)
    assert tokenizer.encode(" w300 w4095") == [300, 4095]
    # This word is not in the vocabulary and is encoded as bytes.
    assert len(tokenizer.encode(" w4096")) == 6
    assert tokenizer.encode(tokenizer.decode([300, 300])) == [300, 300]


def served(pair: SimPair, name: str, prompt: list[int], **fields: Any) -> dict:
    body = {"prompt": prompt, "max_tokens": 20, "ignore_eos": True, "return_token_ids": True, "logprobs": 2}
    status, answer = through(pair, body | fields, name)
    assert status == 200
    return answer["choices"][0]


def forced(pair: SimPair, prompt: list[int], output: list[int], name: str) -> list[dict]:
    """Return each output token's log-probability, its rank and the best log-probability, by teacher forcing."""
    body = {"prompt": [*prompt, *output], "max_tokens": 1, "prompt_logprobs": 1, "cache_salt": name}
    answer = pair.decode.handle(C, body, name)[1]["choices"][0]
    entries = answer["prompt_logprobs"][len(prompt) :]
    return [
        {**entry[str(token)], "best": max(other["logprob"] for other in entry.values())}
        for token, entry in zip(output, entries, strict=True)
    ]


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(5)  # noqa: S311 - seeded test data
    return [[rng.randrange(FIRST_WORD, 4096) for _ in range(rng.randrange(2, 60))] for _ in range(count)]


def test_teacher_forcing_agrees_with_clean_outputs() -> None:
    pair = SimPair(SimConfig(noise=QUIET, audit_always=True), lambda: 0.0)
    for index, prompt in enumerate(prompts(40)):
        choice = served(pair, f"r{index}", prompt)
        for entry, logprob in zip(
            forced(pair, prompt, choice["token_ids"], f"t{index}"), choice["logprobs"]["token_logprobs"], strict=True
        ):
            assert entry["rank"] == 1
            assert abs(entry["logprob"] - logprob) < 1e-12
    assert not pair.ledger.wrong


def test_noise_flips_only_near_ties_and_moves_logprobs_by_its_sigma() -> None:
    level = Noise(flip_rate=1.0)
    noisy = SimPair(SimConfig(noise=level, audit_always=True), lambda: 0.0)
    flips, differences = 0, []
    for index, prompt in enumerate(prompts(150)):
        choice = served(noisy, f"r{index}", prompt)
        teacher = forced(noisy, prompt, choice["token_ids"], f"t{index}")
        for entry, logprob in zip(teacher, choice["logprobs"]["token_logprobs"], strict=True):
            regret = entry["best"] - entry["logprob"]
            assert regret < level.epsilon + 8 * level.sigma
            if entry["rank"] == 1:
                differences.append(entry["logprob"] - logprob)
            else:
                flips += 1
                assert entry["rank"] == 2
    # Each request flips at its first near tie: 1 - (1 - 0.0606) ** 20 = 71 % have one within 20 tokens.
    assert abs(flips / 150 - 0.71) < 0.12
    # Two independent errors of 0.007.
    assert abs(statistics.stdev(differences) - 0.0099) < 0.001
    assert abs(statistics.mean(differences)) < 0.001
    assert not noisy.ledger.wrong


def test_flip_rate_is_a_share_of_requests() -> None:
    quiet = SimPair(SimConfig(noise=QUIET), lambda: 0.0)
    noisy = SimPair(SimConfig(noise=Noise(flip_rate=0.2)), lambda: 0.0)
    changed = sum(
        served(noisy, f"r{index}", prompt)["token_ids"] != served(quiet, f"r{index}", prompt)["token_ids"]
        for index, prompt in enumerate(prompts(400))
    )
    assert abs(changed / 400 - 0.2 * 0.71) < 0.05


def test_min_tokens_delays_the_end_of_sequence() -> None:
    pair = SimPair(SimConfig(noise=QUIET, eos_rate=0.5), lambda: 0.0)
    short = served(pair, "a", [300, 301], ignore_eos=False, max_tokens=30)
    long = served(pair, "a", [300, 301], ignore_eos=False, max_tokens=30, min_tokens=12)
    assert short["finish_reason"] == "stop"
    assert len(short["token_ids"]) < 12 <= len(long["token_ids"])
    assert EOS not in long["token_ids"][:11]


def test_the_text_ends_before_the_stop_string() -> None:
    pair = SimPair(SimConfig(noise=QUIET), lambda: 0.0)
    whole = served(pair, "a", [300, 301])
    third = pair.decode.engine.tokenizer.decode(whole["token_ids"][2:3])
    choice = served(pair, "a", [300, 301], stop=[third])
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == third
    assert choice["text"] == pair.decode.engine.tokenizer.decode(whole["token_ids"][:2])


def test_the_same_run_twice_is_the_same() -> None:
    def run() -> tuple[list, bytes]:
        pair = SimPair(SimConfig(seed=3), lambda: 0.0)
        outputs = [served(pair, f"r{index}", prompt) for index, prompt in enumerate(prompts(30))]
        pair.settle()
        return outputs, b"".join(server.metrics() for server in pair.servers)

    assert run() == run()
