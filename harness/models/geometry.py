"""Reads from a model's config.json how many bytes its KV cache takes and whether prefix cache hits are predictable.

Rule 1. Bytes are predicted only for models whose layers all have full attention with plain K and V: layers x block
        size x kv_heads x (head size of K + head size of V) x bytes per element. For all other models the bytes are
        unknown, with a reason: since bytes are compared exactly, a wrong prediction is worse than none.
Rule 2. Bytes are not predicted for a model family that is not listed here. The default of a missing key depends on the
        family's configuration class, so it is assumed only for listed families.
Rule 3. The hub is never asked. A hub name is looked up in the local cache of earlier downloads.
Rule 4. Prefix cache hits are predictable if all layers have full attention, latent (MLA) or not. Layers with sliding
        windows or states hit less, and for an unlisted family nothing is known.
Rule 5. Vocabulary and special tokens are read for every model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.facts import ELEMENT_BYTES, KVGeometry
from harness.models.files import GENERATION, locate, read_json, special_ids

_OWN_HEAD_SIZE: Final = frozenset({"gemma", "qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text"})
"""Families whose default head size is not hidden size / heads, so that config.json must state it."""

_PLAIN: Final = _OWN_HEAD_SIZE | {
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen2_vl_text", "qwen2_5_vl_text"),
    *("granite", "olmo2", "phi3", "smollm3"),
}
"""Text model types with plain K and V in every layer, unless config.json has a key of `_UNLIKE_LAYERS` or `_MLA`."""

_LATENT: Final = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2"})
"""Text model types with a latent (MLA) in every layer, unless config.json has a key of `_UNLIKE_LAYERS`."""

_MLA: Final = {"kv_lora_rank": "it caches a latent (MLA) instead of K and V"}

_UNLIKE_LAYERS: Final = {
    "attention_chunk_size": "it attends in chunks",
    "sliding_window_pattern": "some of its layers have a sliding window",
    "layers_block_type": "its layers are of several kinds",
    "hybrid_override_pattern": "its layers are of several kinds",
    "num_kv_shared_layers": "some of its layers share their KV",
    "ssm_cfg": "it has state-space layers",
    "mamba_d_state": "it has state-space layers",
    "index_topk": "it keeps an index beside its KV",
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts from a model's own files; None where the files state nothing.

    ``name`` is the model as the user wrote it, ``path`` its directory, ``max_model_len`` tokens of prompt and output
    together, ``dtype`` the checkpoint's type. ``special_token_ids`` are those that config.json, generation_config.json
    or tokenizer.json list as special.
    """

    name: str
    path: Path
    vocab_size: int | None
    max_model_len: int | None
    geometry: KVGeometry | None
    special_token_ids: tuple[int, ...]
    dtype: str | None
    geometry_unknown: str = ""
    """Why ``geometry`` is None."""
    generation_defaults: bool = False
    """Whether there is a generation_config.json, which may name further end tokens besides those of config.json."""
    cache_rules_unknown: str = ""
    """Why prefix cache hits cannot be predicted; empty if they can."""


def read_model(model: str | Path, *, kv_dtype: str | None = None) -> ModelFacts:
    """Read the files of a local directory, or of a hub name in the local hub cache.

    ``kv_dtype`` is the type of the cached elements: the engine's ``--kv-cache-dtype``, or its ``--dtype`` if that flag
    is "auto". None or "auto" means the checkpoint's own type, which is right only if the engine uses it too: vLLM's
    ``--dtype auto`` computes a float32 checkpoint in 16 bits. Raises `ModelNotFound`.
    """
    path = locate(model)
    return _facts(str(model), path, read_json(path / "config.json"), kv_dtype)


def read_config(config: Mapping[str, Any], *, kv_dtype: str | None = None) -> ModelFacts:
    """Like `read_model`, but from a configuration that a server reported, without other files."""
    return _facts("", Path(), config, kv_dtype)


def _facts(name: str, path: Path, config: Mapping[str, Any], kv_dtype: str | None) -> ModelFacts:
    text = _text_config(config)
    geometry, why = _geometry_or_why(config, kv_dtype)
    return ModelFacts(
        name=name,
        path=path,
        vocab_size=_positive(text.get("vocab_size")),
        max_model_len=_positive(text.get("max_position_embeddings")),
        geometry=geometry,
        special_token_ids=tuple(sorted(set(special_ids(path if name else None, config, text)))),
        dtype=_dtype(config, text),
        geometry_unknown=why,
        generation_defaults=bool(name) and (path / GENERATION).is_file(),
        cache_rules_unknown=next(_unlike(text, _UNLIKE_LAYERS), "") or _other_family(text, _PLAIN | _LATENT),
    )


def _geometry_or_why(config: Mapping[str, Any], kv_dtype: str | None) -> tuple[KVGeometry | None, str]:
    try:
        return _geometry(config, kv_dtype), ""
    except _UnpredictableError as error:
        return None, str(error)


class _UnpredictableError(Exception):
    """The bytes of this KV cache cannot be predicted; the message says why."""


def _geometry(config: Mapping[str, Any], kv_dtype: str | None) -> KVGeometry:
    text = _text_config(config)
    why = next(_unlike(text, _MLA | _UNLIKE_LAYERS), "") or _other_family(text, _PLAIN)
    if why:
        raise _UnpredictableError(why)
    heads = _count(text, "num_attention_heads")
    head_size = _head_size(text, heads)
    return KVGeometry(
        layers=_count(text, "num_hidden_layers"),
        kv_heads=_kv_heads(text, heads),
        head_size=head_size,
        head_size_v=head_size,
        dtype_bytes=_dtype_bytes(config, text, kv_dtype),
    )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def _other_family(text: Mapping[str, Any], known: frozenset[str]) -> str:
    family = text.get("model_type")
    if isinstance(family, str) and family in known:
        return ""
    return f"its text model is of type {family!r}, whose attention the harness does not know"


def _unlike(text: Mapping[str, Any], keys: Mapping[str, str]) -> Iterator[str]:
    for key, why in keys.items():
        if text.get(key):
            yield f"{why} ({key} is {text[key]!r})"
    types = text.get("layer_types")
    kinds = set(map(str, types)) if isinstance(types, list | tuple) else set()
    if kinds - {"full_attention"}:
        yield f"its layers are of the kinds {', '.join(sorted(kinds))}"
    if not kinds and text.get("sliding_window") and text.get("use_sliding_window", True):
        yield f"it uses a sliding window of {text['sliding_window']} tokens"


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _count(text: Mapping[str, Any], key: str) -> int:
    value = _positive(text.get(key))
    if value is None:
        raise _UnpredictableError(f"its config.json has {text.get(key)!r} for {key}, which must be a positive number")
    return value


def _kv_heads(text: Mapping[str, Any], heads: int) -> int:
    if "num_key_value_heads" not in text and text["model_type"] != "llama":
        raise _UnpredictableError("its config.json does not state num_key_value_heads")
    if text.get("num_key_value_heads") is None:
        return heads
    return _count(text, "num_key_value_heads")


def _head_size(text: Mapping[str, Any], heads: int) -> int:
    if text.get("head_dim") is not None:
        return _count(text, "head_dim")
    if text["model_type"] in _OWN_HEAD_SIZE:
        raise _UnpredictableError("its config.json does not state head_dim")
    hidden = _count(text, "hidden_size")
    if hidden % heads:
        raise _UnpredictableError(f"its {heads} heads do not divide its hidden size of {hidden}")
    return hidden // heads


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    """Return the checkpoint's type. "dtype" is the newer key; either key may be at the outer level."""
    found = (level.get(key) for level in (text, config) for key in ("dtype", "torch_dtype"))
    name = next(filter(None, found), None)
    return None if name is None else str(name).removeprefix("torch.")


def _dtype_bytes(config: Mapping[str, Any], text: Mapping[str, Any], kv_dtype: str | None) -> int:
    name = kv_dtype
    if kv_dtype in (None, "auto"):
        quantized = config.get("quantization_config")
        if isinstance(quantized, Mapping) and quantized.get("kv_cache_scheme"):
            raise _UnpredictableError("its checkpoint has its own quantised KV cache type (kv_cache_scheme)")
        name = _dtype(config, text)
    if name is None or name not in ELEMENT_BYTES:
        raise _UnpredictableError(f"the size of a cached element of type {name!r} is not known; set the engine's dtype")
    return ELEMENT_BYTES[name]
