"""The kinds of damage. Each function damages one prompt's KV, or returns None if the damage could have no effect.

For example, a prompt of one block has no two blocks to swap. And a last block with nothing but the prompt's last token
can be dropped without effect, since decode overwrites this token's KV. Such damage must not be in the ledger.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .pages import Content, Pages
from .prompt import Prompt

_INTEGERS = {4: torch.int32, 2: torch.int16}
"""The integer type with as many bytes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Another request's KV as it arrived."""

    prompt: Prompt
    content: Content


@dataclass(frozen=True, slots=True)
class Scene:
    """The inputs of a kind of damage."""

    pages: Pages
    prompt: Prompt
    rng: random.Random
    before: Content | None = None
    """The content of the prompt's blocks before the transfer; None if it was not kept."""
    others: Sequence[Kept] = field(default=())
    """Earlier requests and requests in flight, the latest last."""


Done = dict[str, Any] | None
"""The damage done, for the ledger: ``blocks`` are indices within the prompt."""


def foreign(scene: Scene) -> Done:
    """All whole blocks are another request's; a last block that is not full stays."""
    return _of_another(scene, scene.prompt.whole_blocks())


def foreign_prompt(scene: Scene) -> Done:
    """All of the prompt's KV is another request's, the last block too."""
    return _of_another(scene, list(range(len(scene.prompt.blocks)))) if scene.prompt.read_blocks() else None


def stale(scene: Scene) -> Done:
    """One block is another request's, from the same place in its prompt."""
    read = scene.prompt.read_blocks()
    return _of_another(scene, [scene.rng.choice(read)]) if read else None


def unwritten(scene: Scene) -> Done:
    """One block keeps its content from before the transfer."""
    read = scene.prompt.read_blocks()
    if scene.before is None or not read:
        return None
    index = scene.rng.choice(read)
    return _replace(scene, [index], _pick(scene.before, [index]))


def zero_last(scene: Scene) -> Done:
    """The last block is zero."""
    last = len(scene.prompt.blocks) - 1
    if not scene.prompt.read_tokens(last):
        return None
    scene.pages.zero(scene.prompt.blocks[-1:], range(scene.pages.layers))
    return _at(scene, last)


def layer(scene: Scene) -> Done:
    """One layer is zero in every block."""
    if not scene.prompt.read_blocks():
        return None
    chosen = scene.rng.randrange(scene.pages.layers)
    scene.pages.zero(scene.prompt.blocks, [chosen])
    return _at(scene, *range(len(scene.prompt.blocks)), layer=chosen)


def shift(scene: Scene) -> Done:
    """Each token has the K and V of the token before it; the first transferred token keeps its own."""
    read = scene.prompt.read_blocks()
    # The last token's KV is not read, so that two tokens must be read for one to be wrong.
    if not read or (len(read) == 1 and scene.prompt.read_tokens(0) < 2):
        return None
    for half in scene.pages.halves:
        part = half[list(scene.prompt.blocks)]
        rows = part.transpose(0, 1).flatten(1, 2)
        moved = torch.cat([rows[:, :1], rows[:, :-1]], dim=1)
        half[list(scene.prompt.blocks)] = moved.unflatten(1, (part.shape[0], part.shape[2])).transpose(0, 1)
    return _at(scene, *range(len(scene.prompt.blocks)))


def scale(scene: Scene) -> Done:
    """K and V are 1 % too large, in every layer and block."""
    return _scale(scene, scene.pages.halves)


def scale_keys(scene: Scene) -> Done:
    """K is 1 % too large, in every layer and block."""
    return _scale(scene, scene.pages.halves[::2])


def noise(scene: Scene) -> Done:
    """K and V have Gaussian noise of 1 % of their standard deviation in this prompt, in every layer and block."""
    if not scene.prompt.read_blocks():
        return None
    generator = torch.Generator().manual_seed(scene.rng.getrandbits(62))
    for half in scene.pages.halves:
        part = half[list(scene.prompt.blocks)].float()
        added = torch.randn(part.shape, generator=generator).to(part.device) * (0.01 * part.std())
        half[list(scene.prompt.blocks)] = (part + added).to(half.dtype)
    return _at(scene, *range(len(scene.prompt.blocks)))


def flip(scene: Scene) -> Done:
    """One high bit of one number: its sign, or one of the two highest bits of its exponent."""
    below = scene.rng.randrange(3)
    return _flip(scene, lambda bits: 1 << bits - 1 - below)


def flip_byte(scene: Scene) -> Done:
    """The sign and the seven highest bits of the exponent of one number: 0.5 becomes -2, 1.5 becomes -6."""
    return _flip(scene, lambda bits: 0xFF << bits - 8)


def flip_lowest_bit(scene: Scene) -> Done:
    """The lowest bit of the mantissa of one number.

    In float32 this is 6e-8 of the number, far less than the effect of another order of addition, and no check is
    expected to find it.
    """
    return _flip(scene, lambda _: 1)


def swap(scene: Scene) -> Done:
    """Two whole blocks change places: right for this request, wrong for a later one that finds only one of them."""
    whole = scene.prompt.whole_blocks()
    return _swap(scene, *sorted(scene.rng.sample(whole, 2))) if len(whole) > 1 else None


def swap_tail(scene: Scene) -> Done:
    """A whole block changes places with the partial last one."""
    whole, last = scene.prompt.whole_blocks(), len(scene.prompt.blocks) - 1
    if not whole or not scene.prompt.has_partial_tail:
        return None
    return _swap(scene, scene.rng.choice(whole), last)


KINDS: dict[str, Callable[[Scene], Done]] = {
    kind.__name__: kind
    for kind in (
        *(foreign, stale, zero_last, layer, shift, scale, noise, flip, swap),
        *(foreign_prompt, unwritten, scale_keys, flip_byte, flip_lowest_bit, swap_tail),
    )
}
OF_ANOTHER = frozenset({"foreign", "foreign_prompt", "stale"})
"""Kinds that need the KV of other requests."""
FROM_BEFORE = frozenset({"unwritten"})
"""Kinds that need the content of the blocks before the transfer."""


def _flip(scene: Scene, mask: Callable[[int], int]) -> Done:
    """``mask`` gives the bits to flip, from the number of bits that a number has."""
    read, rng, pages = scene.prompt.read_blocks(), scene.rng, scene.pages
    if not read:
        return None
    index, chosen, half = rng.choice(read), rng.randrange(pages.layers), rng.choice(["keys", "values"])
    token, head = rng.randrange(scene.prompt.read_tokens(index)), rng.randrange(pages.heads)
    place = (head, token, rng.randrange(pages.head_size))
    floats: torch.Tensor = getattr(pages, half)(chosen, scene.prompt.blocks[index])
    was = floats[place].item()
    bits = 8 * floats.itemsize
    floats.view(_INTEGERS[floats.itemsize])[place] ^= _signed(mask(bits), bits)
    return _at(scene, index, layer=chosen, half=half, place=place, was=was, now=floats[place].item())


def _signed(value: int, bits: int) -> int:
    """The signed integer with the bits of an unsigned one."""
    return value - (1 << bits) if value >> bits - 1 else value


def _scale(scene: Scene, halves: Sequence[torch.Tensor]) -> Done:
    if not scene.prompt.read_blocks():
        return None
    for half in halves:
        half[list(scene.prompt.blocks)] *= 1.01
    return _at(scene, *range(len(scene.prompt.blocks)))


def _swap(scene: Scene, one: int, other: int) -> Done:
    blocks = scene.prompt.blocks
    scene.pages.write((blocks[other], blocks[one]), scene.pages.copy((blocks[one], blocks[other])))
    return _at(scene, one, other)


def _of_another(scene: Scene, indices: list[int]) -> Done:
    owner = _owner(scene)
    if owner is None or not indices:
        return None
    return _replace(scene, indices, _pick(owner.content, indices), owner=owner.prompt)


def _replace(scene: Scene, indices: list[int], content: Content, owner: Prompt | None = None) -> Done:
    blocks = [scene.prompt.blocks[index] for index in indices]
    if all(torch.equal(new, old) for new, old in zip(content, scene.pages.copy(blocks), strict=True)):
        return None
    scene.pages.write(blocks, content)
    details = {} if owner is None else {"owner": owner.request, "owner_tokens": owner.tokens}
    return _at(scene, *indices, **details)


def _owner(scene: Scene) -> Kept | None:
    """A request with a prompt at least as long, transferred whole: every token that is read is then its own."""
    mine = scene.prompt
    fitting = [
        kept
        for kept in scene.others
        if kept.prompt.request != mine.request and kept.prompt.tokens >= mine.tokens and not kept.prompt.skipped
    ]
    return scene.rng.choice(fitting) if fitting and not mine.skipped else None


def _pick(content: Content, indices: list[int]) -> Content:
    return [copies[indices] for copies in content]


def _at(scene: Scene, *indices: int, **details: Any) -> dict[str, Any]:
    return {"blocks": [scene.prompt.skipped + index for index in indices], "tokens": scene.prompt.tokens, **details}
