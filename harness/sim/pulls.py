"""Planted bugs that change a pull; the table in bugs.py says what each of them does.

Each bug's function returns whether the bug could be applied to the pull.

D computes the last token of a prompt again, so damage to only that token's slot never shows. A permutation of rows does
not show either, because their sum stays the same (language.py, rule 3). So every function here changes the values of
rows, or reads other rows.
"""

from collections.abc import Callable, Sequence

from harness.sim.blocks import Page
from harness.sim.language import mix
from harness.sim.pull import Pull
from harness.sim.transfer import Nixl

_BYTE = 0x7F << 48
DRIFT = 0.15
"""Drift, in nats, of K and V that are 1 % too large; real logits moved by up to 0.29."""

PullBug = Callable[[Pull, Nixl], bool]


def _rows(pull: Pull) -> int:
    """Count the token slots that are pulled and not computed again."""
    hit = len(pull.sequence.blocks) - len(pull.local)
    return len(pull.sequence.prompt) - 1 - hit * len(pull.pages[0].rows)


def _set(pull: Pull, index: int, rows: Sequence[int]) -> None:
    pull.pages[index] = Page(tuple(rows), tainted=True)


def _stale(pull: Pull, decode: Nixl, indexes: Sequence[int]) -> bool:
    """Leave the earlier contents of these blocks in place."""
    for index in indexes:
        _set(pull, index, decode.memory.read(pull.local[index]).rows)
    return True


def _refill(pull: Pull, flat: Sequence[int]) -> bool:
    size = len(pull.pages[0].rows)
    for index in range(len(pull.pages)):
        _set(pull, index, flat[index * size : (index + 1) * size])
    return True


def _flat(pull: Pull) -> list[int]:
    return [row for page in pull.pages for row in page.rows]


def _failed_load_200(pull: Pull, decode: Nixl) -> bool:
    decode.stats.failed_transfers += 1
    decode.memory.tainted.update(pull.local)
    pull.local, pull.notify = [], False
    return True


def _hung_request(pull: Pull, _decode: Nixl) -> bool:
    pull.hangs = True
    return True


def _handshake_failed(pull: Pull, _decode: Nixl) -> bool:
    pull.remote = None
    return True


def _recompute_wrong_offset(pull: Pull, decode: Nixl) -> bool:
    pull.fails = True
    pull.sequence.position_shift = decode.config.block_size
    return True


def _misaligned_hit(pull: Pull, _decode: Nixl) -> bool:
    ids = (pull.sequence.params or {})["remote_block_ids"][0]
    if pull.remote is None or len(ids) == len(pull.pages) or _rows(pull) < 1:
        return False
    for index, block in enumerate(ids[: len(pull.pages)]):
        _set(pull, index, pull.remote.page(block).rows)
    return True


def _stale_tail(pull: Pull, decode: Nixl) -> bool:
    if len(pull.sequence.prompt) % decode.config.block_size < 2:
        return False
    pull.blocks_read -= 1
    return _stale(pull, decode, [len(pull.pages) - 1])


def _tail_off_by_one(pull: Pull, decode: Nixl) -> bool:
    if len(pull.sequence.prompt) % decode.config.block_size < 2:
        return False
    rows = pull.pages[-1].rows
    _set(pull, -1, (0, *rows[:-1]))
    return True


def _block_stride(pull: Pull, decode: Nixl) -> bool:
    half = decode.config.block_size // 2
    if _rows(pull) <= decode.config.block_size or not half:
        return False
    flat = _flat(pull)
    return _refill(pull, [row for i in range(len(pull.pages)) for row in flat[i * half : (i + 2) * half]])


def _truncated_region(pull: Pull, decode: Nixl) -> bool:
    half = decode.config.block_size // 2
    if _rows(pull) <= half or pull.blocks_read < 2:
        return False
    for index, block in enumerate(pull.local[: len(pull.pages)]):
        _set(pull, index, pull.pages[index].rows[:half] + decode.memory.read(block).rows[half:])
    pull.blocks_read //= 2
    return True


def _oversized_region(pull: Pull, decode: Nixl) -> bool:
    pull.blocks_read += 1
    return _shifted_rows(pull, decode)


def _chunked_partial_list(pull: Pull, decode: Nixl) -> bool:
    if len(pull.pages) < 2 or _rows(pull) <= (len(pull.pages) + 1) // 2 * decode.config.block_size:
        return False
    missing = range((len(pull.pages) + 1) // 2, len(pull.pages))
    pull.blocks_read -= len(missing)
    return _stale(pull, decode, missing)


def _full_hit_wrong(pull: Pull, _decode: Nixl) -> bool:
    return _rows(pull) > 0 and _refill(pull, [mix(row) for row in _flat(pull)])


def _zeroed_layer(pull: Pull, _decode: Nixl) -> bool:
    return _rows(pull) > 0 and _refill(pull, [row & 0x00FFFFFFFFFFFFFF for row in _flat(pull)])


def _zeroed_last_block(pull: Pull, decode: Nixl) -> bool:
    # The damage would not show if D read no slot of the last page.
    if _rows(pull) <= (len(pull.pages) - 1) * decode.config.block_size:
        return False
    _set(pull, -1, (0,) * decode.config.block_size)
    return True


def _stale_block(pull: Pull, decode: Nixl) -> bool:
    return _rows(pull) > 0 and _stale(pull, decode, [0])


def _flipped_byte(pull: Pull, _decode: Nixl) -> bool:
    if _rows(pull) < 1:
        return False
    first, *others = pull.pages[0].rows
    _set(pull, 0, (first ^ _BYTE, *others))
    return True


def _shifted_rows(pull: Pull, _decode: Nixl) -> bool:
    return _rows(pull) > 0 and _refill(pull, [mix(1), *_flat(pull)[:-1]])


def _scaled_kv(pull: Pull, _decode: Nixl) -> bool:
    pull.pages = [Page(page.rows, tainted=True, drift=DRIFT) for page in pull.pages]
    return _rows(pull) > 0


def _swapped_blocks(pull: Pull, decode: Nixl) -> bool:
    # The block of the last token cannot be swapped: D computes that token again in place.
    if _rows(pull) // decode.config.block_size < 2:
        return False
    first, second = pull.pages[0].rows, pull.pages[1].rows
    _set(pull, 0, second)
    _set(pull, 1, first)
    return True


def _swapped_tail(pull: Pull, decode: Nixl) -> bool:
    if len(pull.pages) < 2 or len(pull.sequence.prompt) % decode.config.block_size == 0:
        return False
    first, last = pull.pages[0].rows, pull.pages[-1].rows
    _set(pull, 0, last)
    _set(pull, -1, first)
    return True


def _bytes_doubled(pull: Pull, decode: Nixl) -> bool:
    if pull.remote is None:
        return False
    decode.stats.nixl_bytes.observe(pull.blocks_read * pull.remote.layout.block_bytes)
    return True


def _bytes_lost(pull: Pull, decode: Nixl) -> bool:
    for block, page in zip(pull.local, pull.pages, strict=False):
        decode.memory.write(block, page)
    pull.local = []
    return True


def _notification_uncounted(pull: Pull, decode: Nixl) -> bool:
    decode.stats.failed_notifications += 1
    # metrics.py adds failed notifications to failed transfers; this undoes the addition.
    decode.stats.failed_transfers -= 1
    pull.notify = False
    return True


PULL_BUGS: dict[str, PullBug] = {
    bug.__name__.removeprefix("_"): bug
    for bug in (
        _failed_load_200,
        _hung_request,
        _handshake_failed,
        _recompute_wrong_offset,
        _misaligned_hit,
        _stale_tail,
        _tail_off_by_one,
        _block_stride,
        _truncated_region,
        _oversized_region,
        _chunked_partial_list,
        _full_hit_wrong,
        _zeroed_layer,
        _zeroed_last_block,
        _stale_block,
        _flipped_byte,
        _shifted_rows,
        _scaled_kv,
        _swapped_blocks,
        _swapped_tail,
        _bytes_doubled,
        _bytes_lost,
        _notification_uncounted,
    )
}
