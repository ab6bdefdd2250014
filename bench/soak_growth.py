"""What a soak's measurements and parts say together. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.slopes import Row, Slope, rate, slope
from bench.soak_parts import Soaked
from bench.soak_sample import BLOCKS, DESCRIPTORS, MEMORY, Sample
from harness.errors import ExitCode
from harness.verdict import Verdict, worst

_WARMUP = 0.25
"""The share of the requests in which caches and connection pools fill; memory and descriptors are not judged there."""


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much a measurement grows in 1,000 requests."""

    part: str
    """Of the deployment: ``decode-0``, ``proxy``, ``harness``."""
    measure: str
    slope: Slope
    bound: float

    @property
    def surely(self) -> bool:
        """Whether it surely grows by more than its bound."""
        return self.slope.surely_above(self.bound)


def growths(runs: Sequence[Soaked], bounds: Mapping[str, float]) -> Iterator[Growth]:
    """The growth of every measurement, over all deployments together."""
    keys = dict.fromkeys(key for run in runs for one in run.samples for key in one.values)
    for part, measure in keys:
        rows = [_row(run.samples, (part, measure)) for run in runs]
        found = slope(rows) if measure == MEMORY else rate(rows)
        yield Growth(part, measure, found, bounds[measure])


def _row(samples: Sequence[Sample], key: tuple[str, str]) -> Row:
    least = 0 if key[1] == BLOCKS else _WARMUP * samples[-1].requests
    kept = [one for one in samples if one.requests >= least and key in one.values]
    return [one.requests / 1000 for one in kept], [one.values[key] for one in kept]


def missing(found: Sequence[Growth]) -> list[str]:
    """What was to be measured of every server and of the harness, and was not, or too seldom for an interval."""
    short = [f"{one.part} {one.measure}" for one in found if not one.slope.bounded]
    measured = {one.measure for one in found}
    return short + [one for one in (MEMORY, DESCRIPTORS, BLOCKS) if one not in measured]


def exit_code(runs: Sequence[Soaked], found: Sequence[Growth], *, asked: int) -> ExitCode:
    """Invalid if something surely grows or a part is; valid if all was measured and as many verified as asked."""
    verdict = worst(part.verdict for run in runs for part in run.parts)
    if verdict is Verdict.INVALID or any(one.surely for one in found):
        return ExitCode.INVALID
    enough = verified(runs) >= asked and not missing(found)
    return ExitCode.VALID if enough and verdict is Verdict.VALID else ExitCode.UNKNOWN


def verified(runs: Sequence[Soaked]) -> int:
    """Transfers that were counted as predicted and whose outputs were judged."""
    return sum(part.verified for run in runs for part in run.parts)
