"""The transferred blocks of one prompt, and the tokens in them that decode will read."""

import re
from dataclasses import dataclass
from typing import Any

_ENGINE_ID = re.compile(r"(?:chatcmpl-(?P<chat>.+)|cmpl-(?P<completion>.+)-\d+)-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt whose KV has arrived.

    Decode computes a prompt's last token again, for its logits, and overwrites this token's KV. So decode reads the
    transferred KV of ``tokens - 1`` tokens, and damage to the last token has no effect.
    """

    request: str
    """The client's own id (X-Request-Id)."""
    blocks: tuple[int, ...]
    """Ids of the blocks that were transferred, in the prompt's order."""
    tokens: int
    """Tokens of the whole prompt."""
    block_size: int

    @classmethod
    def of(cls, engine_id: str, meta: Any, block_size: int) -> "Prompt":
        """From the metadata of vLLM's NIXL worker (``ReqMeta``)."""
        [blocks] = meta.local_physical_block_ids
        return cls(client_id(engine_id), tuple(int(block) for block in blocks), int(meta.remote.num_tokens), block_size)

    @property
    def skipped(self) -> int:
        """Whole blocks before the first transferred one, which the decode server had already."""
        return max(0, -(-self.tokens // self.block_size) - len(self.blocks))

    @property
    def has_partial_tail(self) -> bool:
        """Whether the last block is not full."""
        return self.tokens % self.block_size != 0

    def read_tokens(self, index: int) -> int:
        """The number of tokens of ``blocks[index]`` whose transferred KV is read."""
        before = (self.skipped + index) * self.block_size
        return min(self.block_size, max(0, self.tokens - 1 - before))

    def read_blocks(self) -> list[int]:
        """Indices of the blocks of which some token is read."""
        return [index for index in range(len(self.blocks)) if self.read_tokens(index)]

    def whole_blocks(self) -> list[int]:
        """Indices of the blocks of which every token is read."""
        return [index for index in range(len(self.blocks)) if self.read_tokens(index) == self.block_size]


def client_id(engine_id: str) -> str:
    """``load-00007`` of ``cmpl-load-00007-0-1f2e3d4c``: endpoint, client's id, number of the prompt, random suffix.

    A chat has one prompt and no number.
    """
    matched = _ENGINE_ID.fullmatch(engine_id)
    return matched["chat"] or matched["completion"] if matched else engine_id
