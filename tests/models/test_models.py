"""The canary's files and tokenizer, and the KV cache geometry read from config.json."""

import json
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_configs import LLAMA

from harness.errors import ModelNotFound, UsageError
from harness.facts import KVGeometry
from harness.models import ModelFacts, make_canary, read_config, read_model
from harness.models.tokenizer import SPECIAL_TOKENS, VOCAB_SIZE, WORDS, vocabulary, write_tokenizer


def digests(checkpoint: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in checkpoint.iterdir()}


def test_a_seed_fixes_every_byte(tmp_path: Path) -> None:
    one, again = make_canary(tmp_path / "one"), make_canary(tmp_path / "again")
    assert digests(one) == digests(again)
    assert one.name == again.name


def test_a_different_seed_or_type_makes_a_different_checkpoint(tmp_path: Path) -> None:
    made = [make_canary(tmp_path), make_canary(tmp_path, seed=1), make_canary(tmp_path, dtype="bfloat16")]
    weights = [digests(path)["model.safetensors"] for path in made]
    assert len(set(made)) == 3
    assert weights[0] != weights[1]
    assert weights[0] == weights[2]


def test_a_cached_checkpoint_is_not_changed(tmp_path: Path) -> None:
    path = make_canary(tmp_path)
    (path / "config.json").write_text("{}")
    assert make_canary(tmp_path) == path
    assert (path / "config.json").read_text() == "{}"


def test_the_default_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make_canary().parent == tmp_path / "pd-harness"


def test_processes_that_make_one_checkpoint_at_once_leave_no_drafts(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        made = set(pool.map(make_canary, [tmp_path] * 4))
    (path,) = made
    assert list(tmp_path.iterdir()) == [path]
    assert digests(path) == digests(make_canary(tmp_path / "alone"))


def test_a_directory_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="XDG_CACHE_HOME"):
        make_canary(tmp_path / "file")


def test_the_canarys_own_files_are_read(tmp_path: Path) -> None:
    path = make_canary(tmp_path)
    facts = read_model(path)
    assert facts.geometry == KVGeometry(4, 4, 64, 64, 4)
    assert (facts.path, facts.vocab_size, facts.max_model_len) == (path, VOCAB_SIZE, 8192)
    assert facts.special_token_ids == tuple(range(len(SPECIAL_TOKENS)))
    assert facts.dtype == "float32"
    # One block over four layers: 32 tokens x 4 heads x (64 + 64) floats.
    assert facts.geometry.block_bytes(32) == 262_144


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory, max_model_len=64)
    tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers library is installed with the engine")
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_the_vocabulary_is_full_and_has_no_word_twice() -> None:
    assert sorted(vocabulary().values()) == list(range(VOCAB_SIZE))
    assert {"w0", "w1", "w999", "house", "a"} < set(WORDS)


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=40))
def test_a_word_is_a_token(encoder: Any, words: list[str]) -> None:
    assert len(encoder.encode(" ".join(words)).ids) == len(words)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(encoder: Any, text: str) -> None:
    assert encoder.decode(encoder.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_are_one_token_inside_text(encoder: Any) -> None:
    assert encoder.encode("<|user|>the w1<|end|>").ids[::3] == [4, 6]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, KVGeometry(3, 5, 7, 7, 2)),
        ({"head_dim": 16}, KVGeometry(3, 5, 16, 16, 2)),
        ({"num_key_value_heads": None}, KVGeometry(3, 10, 7, 7, 2)),
        ({"torch_dtype": None, "dtype": "torch.float32"}, KVGeometry(3, 5, 7, 7, 4)),
        ({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": False}, KVGeometry(3, 5, 7, 7, 2)),
        ({"model_type": "qwen3", "head_dim": 9, "layer_types": ["full_attention"] * 3}, KVGeometry(3, 5, 9, 9, 2)),
        ({"model_type": "mistral", "sliding_window": None}, KVGeometry(3, 5, 7, 7, 2)),
    ],
)
def test_plain_families_are_read(change: dict[str, Any], expected: KVGeometry) -> None:
    assert read_config(LLAMA | change).geometry == expected
    assert read_config({"model_type": "llava", "text_config": LLAMA | change}).geometry == expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kv_lora_rank": 512}, "MLA"),
        ({"model_type": "deepseek_v3"}, "deepseek_v3"),
        ({"model_type": None}, "None"),
        ({"model_type": "mistral", "sliding_window": 4096}, "sliding window of 4096"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention"]}, "linear_attention"),
        ({"attention_chunk_size": 8}, "chunks"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": 71}, "divide"),
        ({"model_type": "qwen3"}, "head_dim"),
        ({"torch_dtype": None}, "dtype"),
        ({"quantization_config": {"kv_cache_scheme": {"num_bits": 8}}}, "kv_cache_scheme"),
    ],
)
def test_an_unpredictable_cache_has_no_geometry_but_a_reason(change: dict[str, Any], why: str) -> None:
    assert_unknown(read_config(LLAMA | change), why)


def assert_unknown(model: ModelFacts, why: str) -> None:
    assert model.geometry is None
    assert why in model.geometry_unknown


def test_missing_kv_heads_are_assumed_only_for_llama() -> None:
    silent = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert read_config(silent).geometry.kv_heads == 10
    assert_unknown(read_config(silent | {"model_type": "mistral"}), "num_key_value_heads")


@pytest.mark.parametrize(("kv_dtype", "size"), [("auto", 2), ("float32", 4), ("half", 2), ("fp8_e4m3", 1)])
def test_the_engines_kv_type_decides_the_size_of_an_element(kv_dtype: str, size: int) -> None:
    assert read_config(LLAMA, kv_dtype=kv_dtype).geometry.dtype_bytes == size


def test_the_size_of_an_unknown_type_is_unknown() -> None:
    assert_unknown(read_config(LLAMA, kv_dtype="int5"), "int5")


FULL = LLAMA | {"vocab_size": 11, "max_position_embeddings": 13, "bos_token_id": 1, "eos_token_id": [2, 3]}


def test_a_hub_name_is_found_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    repository = tmp_path / "hub" / "models--org--name"
    for commit, layers in (("aaa", 3), ("bbb", 6)):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(FULL | {"num_hidden_layers": layers}))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa")
    facts = read_model("org/name")
    assert (facts.name, facts.geometry.layers, facts.special_token_ids) == ("org/name", 3, (1, 2, 3))


@pytest.mark.parametrize("model", ["", "org/absent", "/no/such/path"])
def test_the_error_for_an_absent_model_gives_advice(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(FULL))
    with pytest.raises(ModelNotFound, match="leave --model out"):
        read_model(model)


def test_the_error_for_a_broken_config_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        read_model(tmp_path)
