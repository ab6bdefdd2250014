"""Llama in numpy, written from the architecture's description: an independent computation of the canary's outputs.

Rotary embedding rotates complex numbers, and attention loops over heads; the code depends on no property of the
canary's weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Array = npt.NDArray[Any]
Cache = list[tuple[Array, Array]]
"""Keys (rotated) and values of each layer: [sequences, kv heads, tokens, head size]."""


@dataclass(frozen=True, slots=True)
class Greedy:
    """tokens and margins (nats between the best two) are [sequences, steps]."""

    tokens: Array
    margins: Array


class Llama:
    def __init__(self, checkpoint: Path, dtype: Any = np.float32) -> None:
        self.config = json.loads((checkpoint / "config.json").read_text())
        stored = load_file(checkpoint / "model.safetensors")
        self.weights = {name: tensor.astype(dtype) for name, tensor in stored.items()}

    def prefill(self, tokens: Array) -> tuple[Array, Cache]:
        c = self.config
        empty = np.zeros((len(tokens), c["num_key_value_heads"], 0, c["head_dim"]), np.float32)
        return self.extend(tokens, [(empty, empty)] * c["num_hidden_layers"])

    def extend(self, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
        """Logits [sequences, vocabulary] after the last of ``tokens``, and the cache with them in it."""
        x = self.weights["model.embed_tokens.weight"][tokens]
        grown: Cache = []
        for layer, past in enumerate(cache):
            x, kept = self._layer(f"model.layers.{layer}.", x, past)
            grown.append(kept)
        return self._norm("model.norm", x[:, -1]) @ self.weights["lm_head.weight"].T, grown

    def greedy(self, tokens: Array, steps: int, cache: Cache | None = None) -> Greedy:
        logits, cache = self.prefill(tokens) if cache is None else self.extend(tokens, cache)
        said, margins = [], []
        for step in range(steps):
            best_two = np.sort(logits, axis=-1)[:, -2:]
            margins.append(best_two[:, 1] - best_two[:, 0])
            said.append(logits.argmax(-1))
            if step < steps - 1:
                logits, cache = self.extend(said[-1][:, None], cache)
        return Greedy(np.stack(said, 1), np.stack(margins, 1))

    def _layer(self, prefix: str, x: Array, past: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        w = self.weights
        attended, kept = self._attention(f"{prefix}self_attn.", self._norm(f"{prefix}input_layernorm", x), past)
        x = x + attended
        h = self._norm(f"{prefix}post_attention_layernorm", x)
        gate, up = (h @ w[f"{prefix}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        return x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{prefix}mlp.down_proj.weight"].T, kept

    def _norm(self, name: str, x: Array) -> Array:
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        normed: Array = x / scale * self.weights[f"{name}.weight"]
        return normed

    def _attention(self, prefix: str, h: Array, past: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        start, size = past[0].shape[2], self.config["head_dim"]
        q, k, v = (self._heads(h @ self.weights[f"{prefix}{name}_proj.weight"].T) for name in "qkv")
        keys = np.concatenate([past[0], self._rotate(k, start)], axis=2)
        values = np.concatenate([past[1], v], axis=2)
        q = self._rotate(q, start)
        shared = q.shape[1] // keys.shape[1]
        hidden_from = np.triu(np.full((q.shape[2], keys.shape[2]), -np.inf, np.float32), start + 1)
        heads = []
        for head in range(q.shape[1]):
            scores = q[:, head] @ keys[:, head // shared].swapaxes(1, 2) / np.float32(np.sqrt(size)) + hidden_from
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ values[:, head // shared])
        return np.concatenate(heads, -1) @ self.weights[f"{prefix}o_proj.weight"].T, (keys, values)

    def _heads(self, flat: Array) -> Array:
        return flat.reshape(*flat.shape[:2], -1, self.config["head_dim"]).swapaxes(1, 2)

    def _rotate(self, x: Array, start: int) -> Array:
        """Turn component i, with i + half as its imaginary part, by position x base^(-i/half)."""
        half = x.shape[-1] // 2
        turns = self.config["rope_theta"] ** (-np.arange(half) / half)
        angles = np.arange(start, start + x.shape[2])[:, None] * turns
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
        rotated: Array = np.concatenate([turned.real, turned.imag], -1).astype(x.dtype)
        return rotated
