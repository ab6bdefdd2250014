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

HIGH_BYTE = -0x01000000
"""0xFF000000 as a signed 32-bit integer: sign and seven bits of the exponent. 0.5 becomes -2, 1.5 becomes -6."""
LOWEST_BIT = 1
"""Of the mantissa: 6e-8 of the value, far less than the effect of another order of addition."""


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


def flip_byte(scene: Scene) -> Done:
    """The high byte of one float of one token."""
    return _flip(scene, HIGH_BYTE)


def flip_lowest_bit(scene: Scene) -> Done:
    """The lowest bit of the mantissa of one float, which no check is expected to find."""
    return _flip(scene, LOWEST_BIT)


def swap_tail(scene: Scene) -> Done:
    """A whole block changes places with the partial last one."""
    whole, last = scene.prompt.whole_blocks(), len(scene.prompt.blocks) - 1
    if not whole or not scene.prompt.has_partial_tail:
        return None
    return _swap(scene, scene.rng.choice(whole), last)


def swap_blocks(scene: Scene) -> Done:
    """Two whole blocks change places: right for this request, wrong for a later one that finds only one of them."""
    whole = scene.prompt.whole_blocks()
    return _swap(scene, *sorted(scene.rng.sample(whole, 2))) if len(whole) > 1 else None


def drop_last(scene: Scene) -> Done:
    """The last block is zero."""
    last = len(scene.prompt.blocks) - 1
    if not scene.prompt.read_tokens(last):
        return None
    scene.pages.zero(scene.prompt.blocks[-1:], range(scene.pages.layers))
    return _at(scene, last)


def stale_block(scene: Scene) -> Done:
    """One block keeps its content from before the transfer."""
    read = scene.prompt.read_blocks()
    if scene.before is None or not read:
        return None
    index = scene.rng.choice(read)
    return _replace(scene, [index], _pick(scene.before, [index]))


def foreign_block(scene: Scene) -> Done:
    """One block is another request's, from the same place in its prompt."""
    read = scene.prompt.read_blocks()
    owner = _owner(scene)
    if owner is None or not read:
        return None
    index = scene.rng.choice(read)
    return _replace(scene, [index], _pick(owner.content, [index]), owner=owner.prompt)


def foreign_prompt(scene: Scene) -> Done:
    """All of the prompt's KV is another request's."""
    indices = list(range(len(scene.prompt.blocks)))
    owner = _owner(scene)
    if owner is None or not scene.prompt.read_blocks():
        return None
    return _replace(scene, indices, _pick(owner.content, indices), owner=owner.prompt)


def zero_layer(scene: Scene) -> Done:
    """One layer is zero in every block."""
    if not scene.prompt.read_blocks():
        return None
    layer = scene.rng.randrange(scene.pages.layers)
    scene.pages.zero(scene.prompt.blocks, [layer])
    return _at(scene, *range(len(scene.prompt.blocks)), layer=layer)


def scale_keys(scene: Scene) -> Done:
    """K is 1 % too large, in every layer and block."""
    if not scene.prompt.read_blocks():
        return None
    for layer in range(scene.pages.layers):
        for block in scene.prompt.blocks:
            scene.pages.keys(layer, block).mul_(1.01)
    return _at(scene, *range(len(scene.prompt.blocks)))


KINDS: dict[str, Callable[[Scene], Done]] = {
    kind.__name__: kind
    for kind in (
        flip_byte,
        flip_lowest_bit,
        swap_tail,
        swap_blocks,
        drop_last,
        stale_block,
        foreign_block,
        foreign_prompt,
        zero_layer,
        scale_keys,
    )
}


def _flip(scene: Scene, mask: int) -> Done:
    read, rng, pages = scene.prompt.read_blocks(), scene.rng, scene.pages
    if not read:
        return None
    index, layer, half = rng.choice(read), rng.randrange(pages.layers), rng.choice(["keys", "values"])
    token, head = rng.randrange(scene.prompt.read_tokens(index)), rng.randrange(pages.heads)
    place = (head, token, rng.randrange(pages.head_size))
    floats: torch.Tensor = getattr(pages, half)(layer, scene.prompt.blocks[index])
    was = floats[place].item()
    floats.view(torch.int32)[place] ^= mask
    return _at(scene, index, layer=layer, half=half, place=place, was=was, now=floats[place].item())


def _swap(scene: Scene, one: int, other: int) -> Done:
    blocks = scene.prompt.blocks
    scene.pages.write((blocks[other], blocks[one]), scene.pages.copy((blocks[one], blocks[other])))
    return _at(scene, one, other)


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
    return [pages[indices] for pages in content]


def _at(scene: Scene, *indices: int, **details: Any) -> dict[str, Any]:
    return {"blocks": [scene.prompt.skipped + index for index in indices], "tokens": scene.prompt.tokens, **details}
