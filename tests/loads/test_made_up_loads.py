"""Random prompts with ranges and prefixes, repeated prefixes, and natural prompts."""

import random
from collections import Counter

import pytest

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server
from harness.loads import NaturalLoad, PrefixRepetitionLoad, RandomLoad
from harness.loads.grammar import paragraph, question
from harness.scenario import Request, Scenario

DEPLOYMENT = Deployment(
    servers=(
        Server("prefill-0", Role.PREFILL, "http://p", block_size=16),
        Server("decode-0", Role.DECODE, "http://d", block_size=16),
    ),
    proxy_url="http://x",
    model="m",
    vocab_size=500,
    special_token_ids=(0, 1, 2),
)


def sent(scenario: Scenario) -> tuple[Request, ...]:
    (phase,) = scenario.phases
    return phase.requests


def prompts(scenario: Scenario) -> list[tuple[int, ...]]:
    return [tuple(token for token in one.prompt if isinstance(token, int)) for one in sent(scenario)]


def test_random_answers_have_lengths_from_a_range() -> None:
    load = RandomLoad(num_prompts=200, output_len=(3, 5))
    assert {one.sampling.max_tokens for one in sent(load.scenario(DEPLOYMENT, "s"))} == {3, 4, 5}


def test_other_lengths_of_answers_leave_the_prompts_as_they_are() -> None:
    fixed, drawn = (RandomLoad(num_prompts=9, output_len=length) for length in (4, (4, 9)))
    assert prompts(fixed.scenario(DEPLOYMENT, "s")) == prompts(drawn.scenario(DEPLOYMENT, "s"))


def test_random_prompts_may_begin_with_the_same_tokens_and_differ_after_them() -> None:
    found = prompts(RandomLoad(num_prompts=50, prefix_len=48, input_len=(20, 30)).scenario(DEPLOYMENT, "s"))
    assert len({prompt[:48] for prompt in found}) == 1
    assert len({prompt[48:64] for prompt in found}) == 50
    assert all(68 <= len(prompt) <= 78 for prompt in found)


def test_the_demand_of_a_load_is_its_longest_request() -> None:
    (demand,) = RandomLoad(prefix_len=48, input_len=(20, 30), output_len=(4, 9), turns=3).demands()
    assert (demand.prompt_tokens, demand.output_tokens) == (3 * 78 + 2 * 9, 9)


def test_repeated_prefixes() -> None:
    load = PrefixRepetitionLoad(num_prompts=50, prefix_len=32, suffix_len=20, num_prefixes=4, output_len=7, seed=3)
    found = prompts(load.scenario(DEPLOYMENT, "s"))
    shared = Counter(prompt[:32] for prompt in found)
    assert sorted(shared.values()) == [12, 12, 13, 13]
    assert len({prompt[32:] for prompt in found}) == 50
    assert {len(prompt) for prompt in found} == {52}
    assert [prompt[:32] for prompt in found] != sorted(prompt[:32] for prompt in found), "in random order"
    assert {one.sampling.max_tokens for one in sent(load.scenario(DEPLOYMENT, "s"))} == {7}
    assert load.scenario(DEPLOYMENT, "s") == load.scenario(DEPLOYMENT, "s")


def test_suffixes_that_are_too_short_to_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="--prefix-repetition-suffix-len"):
        PrefixRepetitionLoad(num_prompts=600, suffix_len=1).scenario(DEPLOYMENT, "s")


# --- natural prompts ---


def spelled(text: str) -> tuple[int, ...]:
    """Three characters a token."""
    return tuple(int.from_bytes(text[at : at + 3].encode()) for at in range(0, len(text), 3))


def text_of(tokens: tuple[int, ...]) -> str:
    return "".join(one.to_bytes(3).decode().strip("\0") for one in tokens)


def natural(**fields: object) -> NaturalLoad:
    load = NaturalLoad(**fields)  # type: ignore[arg-type]
    return load.with_tokens([spelled(text) for text in load.texts()])


def test_natural_prompts_have_exactly_the_lengths_that_were_drawn() -> None:
    found = prompts(natural(num_prompts=300, input_len=(60, 63)).scenario(DEPLOYMENT, "s"))
    assert {len(prompt) for prompt in found} == {60, 61, 62, 63}


def test_natural_prompts_are_a_text_and_a_question() -> None:
    texts = [
        text_of(prompt) for prompt in prompts(natural(num_prompts=40, input_len=(80, 200)).scenario(DEPLOYMENT, ""))
    ]
    assert all(text.startswith(f"Note {number} about ") for number, text in enumerate(texts, 1))
    assert all(text.endswith("?") for text in texts)
    assert len({text[-20:] for text in texts}) > 4


def test_natural_prompts_differ_from_their_beginning_on() -> None:
    found = prompts(natural(num_prompts=500, input_len=(20, 40)).scenario(DEPLOYMENT, "s"))
    assert len({prompt[:16] for prompt in found}) == 500


def test_the_same_seed_writes_the_same_texts() -> None:
    assert natural(seed=1).texts() == natural(seed=1).texts()
    assert natural(seed=1).texts() != natural(seed=2).texts()


def test_natural_prompts_need_a_server_that_tokenizes() -> None:
    with pytest.raises(UsageError, match="POST /tokenize"):
        NaturalLoad().with_tokens(None)


def test_a_tokenizer_whose_tokens_are_longer_than_words_is_refused() -> None:
    load = NaturalLoad(num_prompts=2, input_len=(50, 50))
    with pytest.raises(UsageError, match="only 3 tokens"):
        load.with_tokens([(1, 2, 3)] * 4).scenario(DEPLOYMENT, "s")


def test_paragraphs_are_long_enough_varied_and_fully_written() -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    texts = [paragraph(number, 120, rng) for number in range(200)]
    assert all(len(text.split()) >= 120 for text in texts)
    sentences = [sentence for text in texts for sentence in text.split(". ")]
    assert len(set(sentences)) > 0.95 * len(sentences)
    assert not any(mark in text for text in [*texts, question(rng)] for mark in "{}|")
    assert all(text[0].isupper() for text in sentences)
