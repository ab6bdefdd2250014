"""The layout of the KV cache of vLLM 0.32's CPU attention in float32.

A layer is a tensor of shape (blocks, KV heads, block size, 2 * head size), but the last two axes
mislead. Each (block, head) holds 2 * block size * head size floats: first K, *transposed*, as (head size, block
size), and then V as (block size, head size). A unit test compares this with vLLM's own kernel.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

Content = list[torch.Tensor]
"""Copies of whole blocks: for each layer a tensor of shape (blocks, ...)."""


class Pages:
    """All layers of one worker."""

    def __init__(self, layers: Sequence[torch.Tensor]) -> None:
        self._layers = [_checked(layer) for layer in layers]
        _, self.heads, self.block_size, both = self._layers[0].shape
        self.head_size = both // 2

    @classmethod
    def of_worker(cls, worker: Any) -> "Pages":
        """From vLLM's NIXL worker, in the order of the model's layers."""
        caches: Mapping[str, torch.Tensor] = worker.device_kv_caches
        return cls([caches[name] for name in sorted(caches, key=_numbers)])

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self._layers)

    def keys(self, layer: int, block: int) -> torch.Tensor:
        """K of one block, a view of shape (heads, tokens, head size)."""
        return self._halves(layer, block)[:, 0].view(self.heads, self.head_size, self.block_size).transpose(1, 2)

    def values(self, layer: int, block: int) -> torch.Tensor:
        """V of one block, a view of shape (heads, tokens, head size)."""
        return self._halves(layer, block)[:, 1].view(self.heads, self.block_size, self.head_size)

    def copy(self, blocks: Sequence[int]) -> Content:
        """Whole blocks, byte for byte."""
        return [layer[list(blocks)] for layer in self._layers]

    def write(self, blocks: Sequence[int], content: Content) -> None:
        """Put copies into blocks, in order."""
        for layer, pages in zip(self._layers, content, strict=True):
            layer[list(blocks)] = pages

    def zero(self, blocks: Sequence[int], layers: Iterable[int]) -> None:
        """Make blocks zero in some layers."""
        for layer in layers:
            self._layers[layer][list(blocks)] = 0.0

    def _halves(self, layer: int, block: int) -> torch.Tensor:
        return self._layers[layer][block].view(self.heads, 2, self.block_size * self.head_size)


def _checked(layer: torch.Tensor) -> torch.Tensor:
    if layer.device.type != "cpu" or layer.dtype != torch.float32 or layer.dim() != 4:
        raise RuntimeError(
            f"pd_damage knows float32 KV of shape (blocks, heads, block size, 2 * head size) on the CPU; this layer "
            f"is {layer.dtype} {tuple(layer.shape)} on {layer.device}. Serve with --dtype float32 on the CPU."
        )
    return layer


def _numbers(name: str) -> list[int]:
    """``model.layers.10.self_attn`` comes after ``model.layers.2.self_attn``."""
    return [int(digits) for digits in re.findall(r"\d+", name)]
