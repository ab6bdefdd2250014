"""The outputs that a reader should look at: all that are wrong, then doubtful ones, then ties."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.history import History
from harness.reports.html.words import TokenLine, Words, figures, lines_of
from harness.reports.html.wrong_where import pair_of
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

    def shortened(self, share: float) -> "OutputGroup":
        """The group with the first ones of those shown: this share of them, and at least one."""
        return replace(self, shown=self.shown[: max(1, int(len(self.shown) * share))])


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
