"""The canary: a small Llama checkpoint whose greedy output changes when any block of its prompt changes.

One wrong block of a long prompt hardly changes a real model's output. The canary has random weights from a seed and
three properties that make every token of the prompt influence the output without making the output chaotic.

Rule 1. Attention is sharp (`QK_GAIN`) and its output is strong (`VO_GAIN`). Averaging T values leaves 1/√T of each, so
        that a random Llama with diffuse attention answers every long prompt alike. Still sharper attention would let
        rounding flip tokens: influence and noise grow together, so the gain is no larger than it must be.
Rule 2. Attention favours recent tokens by a power law. Few later tokens carry the influence of a late token: without
        this rule, the last eighth of a prompt had a tenth of the first eighth's influence. Channel 0 of the residual
        stream is a constant that no layer writes. Queries and keys read it alike at every rotary frequency. So each
        frequency adds a cosine to the attention score, and their sum falls with the logarithm of the distance.
Rule 3. The canary generates only words with their leading space, because every other row of the output matrix is zero.
        The best of some 1,900 random logits is always above zero, so that no end of text is ever generated, an answer
        has exactly max_tokens tokens, and its text encodes to the same ids.

Swapping two whole blocks hardly changes the request's own output, as in any model that rotates keys before it caches
them.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from harness.errors import UsageError
from harness.models import tokenizer

FORMAT_VERSION: Final = 1
"""Part of the fingerprint in a checkpoint's name; raise it whenever the files of a seed change."""

QK_GAIN: Final = 2.0
VO_GAIN: Final = 1.5
HEAD_GAIN: Final = 4.0
RECENCY: Final = 1.5
GROWTH: Final = 0.6
"""Each layer increases the residual stream's root mean square by about this fraction of the embedding's."""

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryShape:
    """The checkpoint's dimensions, at which the gains above were tuned.

    kv_heads x head_size equals neither hidden nor heads x head_size, so that a wrong formula for the KV's size shows.
    """

    layers: int = 4
    hidden: int = 192
    heads: int = 8
    kv_heads: int = 4
    head_size: int = 64
    intermediate: int = 320
    max_model_len: int = 8192


SHAPE: Final = CanaryShape()


def default_cache() -> Path:
    """Return the directory of checkpoints: ``$XDG_CACHE_HOME/pd-harness``, or ``~/.cache/pd-harness``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pd-harness"


def make_canary(
    directory: Path | None = None, *, seed: int = 0, dtype: Literal["float32", "bfloat16"] = "float32"
) -> Path:
    """Return the path of the canary with these parameters, after making it if it does not exist.

    ``directory`` holds the checkpoints (default: `default_cache`). A checkpoint's name has a fingerprint of all
    parameters. Weights are stored as float32; ``dtype`` is the type in which the configuration asks the engine to
    compute. A checkpoint appears under its name only when complete, so several processes may make the same one at
    once. Raises `UsageError` if the directory cannot be written.
    """
    root = directory or default_cache()
    target = root / f"canary-{_fingerprint(seed, dtype)}"
    if target.is_dir():
        return target
    try:
        _publish(root, target, seed, dtype)
    except OSError as error:
        raise UsageError(
            f"The canary checkpoint cannot be written to {root} ({error}). Set XDG_CACHE_HOME to a directory that can "
            "be written and has 20 MB of free space."
        ) from error
    return target


def _fingerprint(seed: int, dtype: str) -> str:
    gains = (QK_GAIN, VO_GAIN, HEAD_GAIN, RECENCY, GROWTH)
    named = json.dumps([FORMAT_VERSION, seed, dtype, asdict(SHAPE), gains])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _publish(root: Path, target: Path, seed: int, dtype: str) -> None:
    """Write a draft and rename it to ``target``; if another process was first, its checkpoint has the same bytes."""
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=root))
    try:
        # mkdtemp creates with mode 0700, with which other users could not read a shared cache.
        draft.chmod(0o755)
        _write_checkpoint(draft, seed, dtype)
        draft.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_checkpoint(directory: Path, seed: int, dtype: str) -> None:
    _write_json(directory / "config.json", _config(dtype))
    _write_json(directory / "generation_config.json", _generation_config())
    tokenizer.write_tokenizer(directory, max_model_len=SHAPE.max_model_len)
    weights = directory / "model.safetensors"
    save_file(dict(_weights(seed)), weights, metadata={"format": "pt"})
    # save_file creates with mode 0600, with which other users could not read a shared cache.
    weights.chmod(0o644)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(dtype: str) -> dict[str, Any]:
    """Build config.json; dtype and rotary base also have their older names, for transformers before 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.VOCAB_SIZE,
        "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.intermediate,
        "num_hidden_layers": SHAPE.layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "head_dim": SHAPE.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": SHAPE.max_model_len,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "dtype": dtype,
        "torch_dtype": dtype,
        **_special_ids(),
    }


def _special_ids() -> dict[str, int]:
    return {"bos_token_id": tokenizer.BOS, "eos_token_id": tokenizer.EOS, "pad_token_id": tokenizer.PAD}


def _generation_config() -> dict[str, Any]:
    """Build generation_config.json: greedy by default, with two end tokens, neither of which is ever generated."""
    return _special_ids() | {"eos_token_id": [tokenizer.EOS, tokenizer.END], "do_sample": False}


def _weights(seed: int) -> Iterator[tuple[str, Weights]]:
    """Yield every tensor with its name in a Llama checkpoint; matrices are [outputs, inputs]."""
    hidden, vocab = SHAPE.hidden, tokenizer.VOCAB_SIZE
    embedding = _normal(seed, "model.embed_tokens.weight", (vocab, hidden), 1.0)
    embedding[:, 0] = 1.0
    head = _normal(seed, "lm_head.weight", (vocab, hidden), HEAD_GAIN / math.sqrt(hidden))
    head[: tokenizer.FIRST_GENERATED] = 0.0
    head[:, 0] = 0.0
    yield "model.embed_tokens.weight", embedding
    yield "model.norm.weight", np.ones(hidden, np.float32)
    yield "lm_head.weight", head
    for layer in range(SHAPE.layers):
        yield from _layer(seed, layer)


def _layer(seed: int, layer: int) -> Iterator[tuple[str, Weights]]:
    prefix = f"model.layers.{layer}."
    hidden, inner = SHAPE.hidden, SHAPE.intermediate
    queries, keys = SHAPE.heads * SHAPE.head_size, SHAPE.kv_heads * SHAPE.head_size
    for name, outputs, inputs, gain in (
        ("self_attn.q_proj", queries, hidden, QK_GAIN),
        ("self_attn.k_proj", keys, hidden, QK_GAIN),
        ("self_attn.v_proj", keys, hidden, VO_GAIN),
        ("self_attn.o_proj", hidden, queries, VO_GAIN),
        ("mlp.gate_proj", inner, hidden, 1.0),
        ("mlp.up_proj", inner, hidden, 1.0),
        ("mlp.down_proj", hidden, inner, 1.0),
    ):
        full = f"{prefix}{name}.weight"
        matrix = _normal(seed, full, (outputs, inputs), gain / math.sqrt(inputs))
        yield full, _keep_constant(name, matrix, layer)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}{norm}.weight", np.ones(hidden, np.float32)


def _keep_constant(name: str, matrix: Weights, layer: int) -> Weights:
    """Keep channel 0 constant (rule 2): only queries and keys read it, amplified because the norm shrinks it."""
    if name.endswith(("o_proj", "down_proj")):
        matrix[0] = 0.0
        return matrix
    matrix[:, 0] = 0.0
    if name.endswith(("q_proj", "k_proj")):
        # A rotary pair is (i, i + head_size/2); setting the first of each pair gives one cosine per frequency.
        by_head = matrix.reshape(-1, SHAPE.head_size, matrix.shape[1])
        by_head[:, : SHAPE.head_size // 2, 0] = RECENCY * (1 + GROWTH * layer)
    return matrix


def _normal(seed: int, name: str, size: tuple[int, int], deviation: float) -> Weights:
    """Draw a tensor from its own random stream, so that its values do not depend on other tensors' sizes."""
    stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return stream.standard_normal(size, dtype=np.float32) * np.float32(deviation)
