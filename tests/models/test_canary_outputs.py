"""The canary's greedy outputs, computed by a reference implementation that is independent of the canary's code."""

import os
from pathlib import Path

import numpy as np
import pytest
from llama_reference import Array, Cache, Llama

from harness.models import make_canary
from harness.models.tokenizer import FIRST_GENERATED, VOCAB_SIZE

BLOCK = 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_canary(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def llama(checkpoint: Path) -> Llama:
    return Llama(checkpoint)


def prompts(count: int, length: int, seed: int = 7) -> Array:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, (count, length))


def head_of(cache: Cache, length: int) -> Cache:
    return [(k[:, :, :length], v[:, :, :length]) for k, v in cache]


def first_difference(llama: Llama, changed: Array, at: int, cache: Cache, expected: Array) -> int | None:
    """Return the step of the first token that differs from ``expected`` if the prompt is ``changed`` from ``at`` on."""
    logits, grown = llama.extend(changed[:, at:], head_of(cache, at))
    for step, token in enumerate(expected):
        if logits.argmax() != token:
            return step
        logits, grown = llama.extend(np.array([[token]]), grown)
    return None


@pytest.mark.parametrize("length", [20, 32, 33, 100, 256, pytest.param(1024, marks=pytest.mark.slow)])
def test_one_changed_token_in_any_block_changes_sixteen_greedy_tokens(llama: Llama, length: int) -> None:
    prompt = prompts(1, length)
    _, cache = llama.prefill(prompt)
    expected = llama.greedy(prompt, 16).tokens[0]
    random = np.random.default_rng(length)
    for start in range(0, length, BLOCK):
        at = int(random.integers(start, min(start + BLOCK, length)))
        changed = prompt.copy()
        changed[0, at] = (changed[0, at] + random.integers(1, VOCAB_SIZE)) % VOCAB_SIZE
        assert first_difference(llama, changed, at, cache, expected) is not None, f"token {at} of {length}"


def test_outputs_have_no_loops_no_end_token_and_few_near_ties(llama: Llama) -> None:
    output = llama.greedy(prompts(16, 64), 64)
    for tokens in output.tokens.tolist():
        for period in range(1, 9):
            assert tokens[-period:] * 3 != tokens[-3 * period :], f"a cycle of {period} tokens"
    distinct = np.mean([len(set(tokens)) / len(tokens) for tokens in output.tokens.tolist()])
    assert distinct > 0.7
    assert np.median(output.margins) > 0.4
    assert output.tokens.min() >= FIRST_GENERATED


def test_rounding_is_far_below_the_margins(llama: Llama, checkpoint: Path) -> None:
    prompt = prompts(1, 256)
    exact, _ = Llama(checkpoint, np.float64).prefill(prompt)
    rounded, _ = llama.prefill(prompt)
    assert np.abs(exact - rounded).max() < 1e-3


@pytest.mark.live
@pytest.mark.filterwarnings("default")  # warnings of third-party imports do not concern this project
def test_transformers_generates_the_same_tokens_as_the_reference(llama: Llama, checkpoint: Path) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    chat = [{"role": "user", "content": "the house w1"}, {"role": "assistant", "content": " w2"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert len(ids["input_ids"]) == (2 + 3) + (2 + 1) + 1
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    prompt = np.array([ids["input_ids"]])
    with torch.no_grad():
        made = model.generate(torch.from_numpy(prompt), max_new_tokens=16, do_sample=False)
    expected = llama.greedy(prompt, 16).tokens[0].tolist()
    assert made[0, prompt.shape[1] :].tolist() == expected
    text = tokenizer.decode(expected)
    assert tokenizer(text).input_ids == expected
