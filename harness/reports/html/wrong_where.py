"""Where wrong outputs are: between which servers, from which token of the answer and which block of the prompt on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.reports.requests import OutputStatus, RequestRow
from harness.reports.text import clean


@dataclass(frozen=True, slots=True)
class Count:
    """How many outputs of one kind are wrong."""

    name: str
    wrong: int
    of: int | None
    """Verified outputs of the kind; None if the kind is only known of wrong ones."""


def wrong_by_pair(rows: Sequence[RequestRow]) -> list[Count]:
    """Wrong outputs by prefill and decode server, the pair with the largest share first."""
    verified = (OutputStatus.RIGHT, OutputStatus.TIE, OutputStatus.DOUBTFUL, OutputStatus.WRONG)
    counts: dict[str, list[int]] = {}
    for row in rows:
        if row.output in verified:
            count = counts.setdefault(pair_of(row), [0, 0])
            count[0] += row.output is OutputStatus.WRONG
            count[1] += 1
    found = [Count(name, wrong, of) for name, (wrong, of) in counts.items()]
    return sorted(found, key=lambda one: (-one.wrong / (one.of or 1), one.name))


def wrong_by_token(rows: Sequence[RequestRow]) -> list[Count]:
    """Wrong outputs by the first wrong token of the answer."""
    return list(_by_number("token", (row.token for row in rows if row.output is OutputStatus.WRONG), 0))


def wrong_by_block(rows: Sequence[RequestRow]) -> list[Count]:
    """Wrong outputs by the first wrong block of the prompt."""
    return list(_by_number("block", (row.block for row in rows if row.output is OutputStatus.WRONG), 1))


def _by_number(noun: str, numbers: Iterable[int | None], least: int) -> Iterator[Count]:
    """Counts in ranges that double: 0, 1, 2 to 3, 4 to 7, ..."""
    counts: dict[int, int] = {}
    unknown = 0
    for number in numbers:
        if number is None:
            unknown += 1
        else:
            counts[number.bit_length()] = counts.get(number.bit_length(), 0) + 1
    for bits in sorted(counts):
        low, high = max(least, 1 << bits >> 1), (1 << bits) - 1
        yield Count(f"{noun} {low:,}" if low >= high else f"{noun}s {low:,} to {high:,}", counts[bits], None)
    if unknown:
        yield Count(f"no single {noun} is known", unknown, None)


def pair_of(row: RequestRow) -> str:
    """``prefill-0 → decode-1``; a server that is not known is a question mark."""
    return clean(f"{row.prefill_server or '?'} → {row.decode_server or '?'}", None)
