"""The outputs that a reader should look at: all that are wrong, then doubtful ones, then ties."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.history import History
from harness.reports.html.words import TokenLine, Words, figures, lines_of
from harness.reports.requests import OutputStatus, RequestRow
from harness.reports.text import clean
from harness.verify.judging.divergence import Divergence, divergences, spellings
from harness.verify.judging.evidence import look_at_outputs

MOST = {OutputStatus.WRONG: 120, OutputStatus.DOUBTFUL: 40, OutputStatus.TIE: 40}
"""Outputs of each kind that are shown with their words: about 2 kB each."""
NAMES = {
    OutputStatus.WRONG: "Wrong outputs",
    OutputStatus.DOUBTFUL: "Doubtful outputs",
    OutputStatus.TIE: "Near ties",
}
MEANING = {
    OutputStatus.WRONG: "Noise does not explain them, or they are proven wrong otherwise. They make the run invalid.",
    OutputStatus.DOUBTFUL: (
        "Beyond a limit that noise exceeds in one run of ten, and within the limit that it exceeds in one of a "
        "thousand. They make no run invalid."
    ),
    OutputStatus.TIE: (
        "Right: they differ from the best tokens only where two tokens are equally good within the measured noise."
    ),
}


@dataclass(frozen=True, slots=True)
class ShownOutput:
    """One output, ready to be shown."""

    row: RequestRow
    pair: str
    why: str
    at: int | None
    regret: float | None
    """Of the token at ``at``, nats."""
    words: Sequence[Words]
    tokens: Sequence[TokenLine]
    text: str
    """The whole answer as served."""


@dataclass(frozen=True, slots=True)
class OutputGroup:
    """The outputs of one kind."""

    status: OutputStatus
    name: str
    meaning: str
    shown: Sequence[ShownOutput]
    total: int


def output_groups(history: History, rows: Iterable[RequestRow]) -> list[OutputGroup]:
    """A group for each kind of which there are outputs."""
    by_status: dict[OutputStatus, list[RequestRow]] = {status: [] for status in MOST}
    for row in rows:
        if row.output in by_status:
            by_status[row.output].append(row)
    chosen = {status: found[: MOST[status]] for status, found in by_status.items()}
    ids = {row.request_id for found in chosen.values() for row in found}
    if not ids:
        return []
    compared = [one for one in look_at_outputs(history).compared if one.request_id in ids]
    # Wrong outputs that no comparison shows have no divergence, and are shown by their finding alone.
    found, spelled = divergences(history, compared), spellings(history, ids)
    return [
        OutputGroup(
            status,
            NAMES[status],
            MEANING[status],
            [_shown(row, found.get(row.request_id), spelled) for row in chosen[status]],
            len(by_status[status]),
        )
        for status in MOST
        if chosen[status]
    ]


def pair_of(row: RequestRow) -> str:
    """``prefill-0 → decode-1``; a server that is not known is a question mark."""
    return clean(f"{row.prefill_server or '?'} → {row.decode_server or '?'}", None)


def _shown(row: RequestRow, one: Divergence | None, spelled: Mapping[int, str]) -> ShownOutput:
    if one is None:
        return ShownOutput(row, pair_of(row), clean(row.why, None), row.token, None, (), (), "")
    here = next((p for p in one.around if p.index == one.at), None)
    return ShownOutput(
        row,
        pair_of(row),
        clean(row.why, None),
        one.at,
        None if here is None else here.regret,
        lines_of(one, spelled),
        figures(one, spelled),
        clean(one.served.text, 1200),
    )


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
