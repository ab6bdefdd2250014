"""Token ids for prompts: ordinary tokens of a vocabulary, and canaries, which make prompts different. Pure."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError
from harness.facts import Deployment

Ids = npt.NDArray[np.int64]
"""Token ids."""

USUAL_BLOCK_SIZE = 16
"""Tokens; vLLM's default, for servers that do not report their block size."""


def ordinary_of(deployment: Deployment) -> Ids:
    """The token ids that prompts may be made of. Raises UsageError if the model's vocabulary is not known."""
    if deployment.vocab_size is None:
        raise UsageError(
            f"The configuration of the model that the servers name, {deployment.model_path}, cannot be read here, "
            "and the servers do not tokenize (POST /tokenize), so no random prompts can be made for it. Give "
            "--model: a directory with the model's config.json, or a hub name in the local cache. Or give a load "
            "of your own with --dataset-path."
        )
    return ordinary(deployment.vocab_size, deployment.special_token_ids)


def smallest_block(deployment: Deployment) -> int:
    """The smallest block size of the servers, in tokens."""
    sizes = [server.block_size for server in deployment.servers if server.block_size is not None]
    return min(sizes, default=USUAL_BLOCK_SIZE)


def ordinary(vocab_size: int, special_token_ids: Iterable[int]) -> Ids:
    """All token ids that are not special, in order; shape (at most vocab_size,)."""
    found = np.setdiff1d(np.arange(vocab_size), np.fromiter(special_token_ids, dtype=np.int64))
    if len(found) < 2:
        raise UsageError(
            f"Of the vocabulary's {vocab_size} tokens {len(found)} are not special; different prompts need at least "
            "two. Check the model's configuration."
        )
    return found


def canaries(count: int, ids: Ids) -> Ids:
    """The numbers below ``count``, each in digits of base ``len(ids)``, as token ids; shape (count, digits)."""
    base, digits = len(ids), 1
    while base**digits < count:
        digits += 1
    powers = base ** np.arange(digits - 1, -1, -1)
    found: Ids = ids[np.arange(count)[:, None] // powers % base]
    return found


def refuse_unless_fits(digits: int, block_size: int, shortest: int) -> None:
    """Raise UsageError if a canary of so many tokens does not fit into one block or into the shortest prompt."""
    if digits > min(block_size, shortest):
        raise UsageError(
            f"To make all prompts different takes their first {digits} tokens, and a block has {block_size} and the "
            f"shortest prompt has {shortest} tokens: ask for fewer or longer prompts."
        )
