"""Compares the outputs of the same requests on both sides. Are they equal, and if not, is one of them wrong? No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.evidence import Answer
from harness.compare.stored_outputs import StoredOutput

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """A request whose output differs between the sides."""

    baseline: str
    """The request's id on the baseline side."""
    run: str
    token: int
    """Index of the first token that differs, from 0; characters if there are no token ids."""
    lead: float | None
    """By how much the better side's token exceeded its runner-up there: small at a near tie; nats. None: not known."""
    wrong: str
    """``baseline``, ``run``, ``both``, or empty if neither was found wrong."""
    both_right: bool
    """Whether both were verified and found right: a near tie."""


@dataclass(frozen=True, slots=True)
class OutputsChange:
    """All outputs of the requests that both sides sent."""

    shared: int
    """Requests that were answered on both sides."""
    equal: int
    wrong_in_baseline: int
    wrong_in_run: int
    near_ties: int
    """Different, and both verified and found right."""
    unexplained: int
    """Different, and at least one of them was not verified."""
    differing_within: float | None
    """Share of requests whose output differs between two runs of the baseline: the noise. None: one run only."""
    differing_between: float | None
    """Share of requests whose output differs between a run of the baseline and a run of the other side."""
    examples: tuple[Difference, ...]

    @property
    def answer(self) -> Answer:
        """REAL if outputs of the run are wrong where those of the baseline are not."""
        if self.wrong_in_run:
            return Answer.REAL
        if self.shared == 0:
            return Answer.UNKNOWN
        if self.equal == self.shared:
            return Answer.SAME
        return Answer.UNKNOWN if self.unexplained and not self.like_noise else Answer.NOISE

    @property
    def like_noise(self) -> bool:
        """Whether no more outputs differ between the sides than within the baseline."""
        within, between = self.differing_within, self.differing_between
        return within is not None and between is not None and between <= within * _MORE + _FEW / max(self.shared, 1)


_MORE = 1.5
_FEW = 3
"""Between the sides, so many times the share within the baseline may differ, and so many outputs more: a share of a few
requests scatters."""


def compare_outputs(
    baseline: Sequence[Mapping[bytes, StoredOutput]], run: Sequence[Mapping[bytes, StoredOutput]]
) -> OutputsChange:
    """Compare every request that at least one run of each side answered."""
    shared = [key for key in dict.fromkeys(key for one in baseline for key in one) if any(key in one for one in run)]
    pairs = [(_those(baseline, key), _those(run, key)) for key in shared]
    differences = [found for old, new in pairs if (found := _difference(old, new))]
    wrong = [one.wrong for one in differences]
    return OutputsChange(
        shared=len(shared),
        equal=len(shared) - len(differences),
        wrong_in_baseline=wrong.count("baseline"),
        wrong_in_run=wrong.count("run"),
        near_ties=sum(one.both_right and not one.wrong for one in differences),
        unexplained=sum(not one.both_right and not one.wrong for one in differences),
        differing_within=_share(_unequal(old) for old, _ in pairs),
        differing_between=_share(_between(old, new) for old, new in pairs),
        examples=tuple(sorted(differences, key=lambda one: (one.wrong != "run", one.both_right)))[:_SHOWN],
    )


def _those(runs: Sequence[Mapping[bytes, StoredOutput]], key: bytes) -> list[StoredOutput]:
    return [one[key] for one in runs if key in one]


def _same(one: StoredOutput, other: StoredOutput) -> bool:
    return np.array_equal(one.tokens, other.tokens)


def _difference(old: Sequence[StoredOutput], new: Sequence[StoredOutput]) -> Difference | None:
    """The first output of the run side that no run of the baseline gave, the wrong ones first."""
    strangers = [one for one in new if not any(_same(one, known) for known in old)]
    if not strangers:
        return None
    one = min(strangers, key=lambda output: not output.wrong)
    known = min(old, key=lambda output: (output.wrong, not output.right))
    token = _first(known, one)
    return Difference(
        known.request,
        one.request,
        token,
        _lead(known, one, token),
        _wrong(any(output.wrong for output in old), one.wrong),
        known.right and one.right,
    )


def _wrong(baseline: bool, run: bool) -> str:
    return "both" if baseline and run else "baseline" if baseline else "run" if run else ""


def _first(one: StoredOutput, other: StoredOutput) -> int:
    common = min(len(one.tokens), len(other.tokens))
    unequal = np.flatnonzero(one.tokens[:common] != other.tokens[:common])
    return int(unequal[0]) if len(unequal) else common


def _lead(one: StoredOutput, other: StoredOutput, token: int) -> float | None:
    leads = [float(output.leads[token]) for output in (one, other) if token < len(output.leads)]
    return max(leads) if leads and not any(np.isnan(leads)) else None


def _unequal(outputs: Sequence[StoredOutput]) -> tuple[int, int]:
    """Pairs of a side's own runs that differ, and all such pairs."""
    pairs = [(one, other) for place, one in enumerate(outputs) for other in outputs[:place]]
    return sum(not _same(*pair) for pair in pairs), len(pairs)


def _between(old: Sequence[StoredOutput], new: Sequence[StoredOutput]) -> tuple[int, int]:
    pairs = [(one, other) for one in old for other in new]
    return sum(not _same(*pair) for pair in pairs), len(pairs)


def _share(counts: Iterable[tuple[int, int]]) -> float | None:
    unequal, pairs = map(sum, zip(*counts, strict=True)) if (counts := list(counts)) else (0, 0)
    return unequal / pairs if pairs else None
