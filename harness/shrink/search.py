"""The search for the smallest failing candidate: a generator that yields candidates and receives whether each fails.

Every yielded candidate is smaller than the best so far in one respect and larger in none. So each candidate that fails
is the new best, and the search may be stopped at any time.

If each candidate always fails or never fails, the result is *1-minimal*. It does not fail any more after any single
change: one request fewer, the concurrency halved or set to 1, one prompt (or all) shortened to the next length of
``PrefixLengths``, or one output (or all) to the next lower power of two. The passes are repeated until none finds a
smaller candidate.

Requests that were sent at fixed times are first tried as a closed loop, which needs no waiting and is easier to report.
Only if that does not fail, all candidates keep the times; the limit of requests in flight has no meaning then.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from itertools import count, takewhile

from harness.shrink.candidate import Candidate, Piece, PrefixLengths, output_lengths

Asking = Generator[Candidate, bool, Candidate]
"""Yields candidates, receives whether each fails, and returns the best."""


def search(whole: Candidate, hints: Iterable[Candidate], prefixes: PrefixLengths) -> Asking:
    """Search, starting from the first of ``hints`` that fails, else from ``whole``, which is known to fail."""
    if whole.timed and (yield replace(whole, timed=False)):
        whole = replace(whole, timed=False)
    best = yield from _first(whole, (replace(hint, timed=whole.timed) for hint in hints))
    while True:
        before = best
        best = yield from _fewer(best)
        best = yield from _lower_concurrency(best)
        best = yield from _shorter(best, prefixes.lengths, prefixes.shorter, lambda piece: piece.prompt)
        best = yield from _shorter(best, output_lengths, _with_output, lambda piece: piece.output)
        if best == before:
            return best


def _first(whole: Candidate, hints: Iterable[Candidate]) -> Asking:
    for hint in hints:
        if hint.pieces and hint != whole and (yield hint):
            return hint
    return whole


def _fewer(best: Candidate) -> Asking:
    """Leave out requests: first halves, then quarters, finally single requests."""
    number = len(best.pieces)
    for size in takewhile(bool, (number >> shift for shift in count(1))):
        start = 0
        while start < len(best.pieces):
            rest = best.pieces[:start] + best.pieces[start + size :]
            fewer = best.of_pieces(rest)
            if rest and (yield fewer):
                best = fewer
            else:
                start += size
    return best


def _lower_concurrency(best: Candidate) -> Asking:
    """Try a concurrency of 1; if that does not fail, halve it as often as possible."""
    while best.concurrency > 1 and not best.timed:
        for concurrency in dict.fromkeys((1, best.concurrency // 2)):
            if (yield replace(best, concurrency=concurrency)):
                best = replace(best, concurrency=concurrency)
                break
        else:
            return best
    return best


def _shorter(
    best: Candidate,
    lengths: Callable[[int], list[int]],
    shorten: Callable[[Piece, int], Piece],
    length_of: Callable[[Piece], int],
) -> Asking:
    """Shorten all pieces together, then each piece by itself."""
    numbers = [piece.number for piece in best.pieces]
    for chosen in (numbers, *([number] for number in numbers if len(numbers) > 1)):
        longest = max(length_of(piece) for piece in best.pieces if piece.number in chosen)
        options = [_shortened(best, chosen, length, shorten) for length in lengths(longest)]
        best = yield from _bisect(best, [option for option in options if option != best])
    return best


def _shortened(
    best: Candidate, numbers: Sequence[int], length: int, shorten: Callable[[Piece, int], Piece]
) -> Candidate:
    pieces = tuple(shorten(piece, length) if piece.number in numbers else piece for piece in best.pieces)
    return replace(best, pieces=pieces)


def _with_output(piece: Piece, length: int) -> Piece:
    return replace(piece, output=min(piece.output, length))


def _bisect(best: Candidate, options: Sequence[Candidate]) -> Asking:
    """An option that fails, and whose next smaller option does not. Options are sorted, and smaller than ``best``."""
    passing, failing = -1, len(options)
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if (yield options[middle]):
            best, failing = options[middle], middle
        else:
            passing = middle
    return best
