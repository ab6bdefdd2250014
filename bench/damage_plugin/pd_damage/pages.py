"""The KV cache as vLLM registers it with NIXL, one tensor for each layer, and the keys and values in it.

Layouts, with B blocks, H heads of K and V, N tokens in a block, and head size D:

- ``(B, H, N, 2 * D)`` on a GPU (FlashAttention and FlashInfer of vLLM 0.26 to 0.32): K, then V, in the last axis. The
  axes are in this order with ``VLLM_KV_CACHE_LAYOUT=HND`` and with ``NHD``, which orders memory, not axes.
- The same shape on the CPU (vLLM 0.32), where the last two axes mislead: each (block, head) holds first K,
  *transposed*, as (D, N), and then V as (N, D). A unit test compares this with vLLM's own kernel.
- ``(2, B, N, H, D)`` and ``(B, 2, N, H, D)``: FlashAttention and FlashInfer of earlier releases. N and H may also
  change places.

Types of fewer than 16 bits have scales beside them, and a cache of latent vectors (MLA) has no separate K and V: both
are refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

Content = list[torch.Tensor]
"""Copies of whole blocks: K and V of each layer in turn, tensors of shape (blocks, heads, tokens, head size)."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class Pages:
    """All layers of one worker, on any device. ``block_size``: tokens; needed only where an axis could be either."""

    def __init__(self, layers: Sequence[torch.Tensor], block_size: int, *, cpu_kernels: bool) -> None:
        self._halves = [half for layer in layers for half in keys_and_values(layer, block_size, cpu_kernels)]
        _, self.heads, self.block_size, self.head_size = self._halves[0].shape

    @classmethod
    def of_worker(cls, worker: Any) -> "Pages":
        """From vLLM's NIXL worker, in the order of the model's layers."""
        caches: Mapping[str, torch.Tensor] = worker.device_kv_caches
        layers = [caches[name] for name in sorted(caches, key=_numbers)]
        return cls(layers, worker.block_size, cpu_kernels=layers[0].device.type == "cpu")

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self._halves) // 2

    @property
    def halves(self) -> Sequence[torch.Tensor]:
        """K and V of each layer in turn: views of shape (blocks, heads, tokens, head size)."""
        return self._halves

    def keys(self, layer: int, block: int) -> torch.Tensor:
        """K of one block, a view of shape (heads, tokens, head size)."""
        return self._halves[2 * layer][block]

    def values(self, layer: int, block: int) -> torch.Tensor:
        """V of one block, a view of shape (heads, tokens, head size)."""
        return self._halves[2 * layer + 1][block]

    def copy(self, blocks: Sequence[int]) -> Content:
        """Copies of blocks, complete when this returns: a transfer may overwrite the blocks afterwards."""
        content = [half[list(blocks)] for half in self._halves]
        self.finish()
        return content

    def write(self, blocks: Sequence[int], content: Content) -> None:
        """Put copies into blocks, in order."""
        for half, copies in zip(self._halves, content, strict=True):
            half[list(blocks)] = copies

    def zero(self, blocks: Sequence[int], layers: Iterable[int]) -> None:
        """Make blocks zero in some layers."""
        for layer in layers:
            for half in self._halves[2 * layer : 2 * layer + 2]:
                half[list(blocks)] = 0.0

    def finish(self) -> None:
        """Wait for the GPU: neither NIXL's transfers nor the model's stream wait for this one."""
        if self._halves[0].is_cuda:
            torch.cuda.synchronize(self._halves[0].device)


def keys_and_values(layer: torch.Tensor, block_size: int, cpu_kernels: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V of all blocks, views of shape (blocks, heads, tokens, head size).

    Raises RuntimeError for other layouts.
    """
    if layer.dtype not in _FLOATS or layer.dim() not in {4, 5} or (cpu_kernels and layer.dim() != 4):
        raise _unknown(layer)
    if layer.dim() == 4:
        packed = _tokens_third(layer, block_size)
        return _of_cpu_kernels(packed) if cpu_kernels else _in_last_axis(packed)
    if 2 not in layer.shape[:2]:
        raise _unknown(layer)
    # With two blocks, both axes have two places: K and V come first, as in FlashAttention.
    keys, values = layer.unbind(0 if layer.shape[0] == 2 else 1)
    return _tokens_third(keys.transpose(1, 2), block_size), _tokens_third(values.transpose(1, 2), block_size)


def _tokens_third(half: torch.Tensor, block_size: int) -> torch.Tensor:
    """The axes as (blocks, heads, tokens, ...), which may be as they are or with tokens before heads."""
    if half.shape[2] == block_size:
        return half
    if half.shape[1] == block_size:
        return half.transpose(1, 2)
    raise _unknown(half)


def _in_last_axis(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = packed.chunk(2, dim=-1)
    return keys, values


def _of_cpu_kernels(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    blocks, heads, tokens, both = packed.shape
    keys, values = packed.view(blocks, heads, 2, tokens * both // 2).unbind(2)
    head_size = both // 2
    return keys.view(blocks, heads, head_size, tokens).transpose(2, 3), values.view(blocks, heads, tokens, head_size)


def _unknown(layer: torch.Tensor) -> RuntimeError:
    return RuntimeError(
        f"pd_damage knows K and V of 16 or 32 bits in the layouts that pages.py lists; this layer is {layer.dtype} "
        f"{tuple(layer.shape)} on {layer.device}."
    )


def _numbers(name: str) -> list[int]:
    """``model.layers.10.self_attn`` comes after ``model.layers.2.self_attn``."""
    return [int(digits) for digits in re.findall(r"\d+", name)]
