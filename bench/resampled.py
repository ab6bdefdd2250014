"""Draws clean runs from recorded outputs, and counts those in which the rule accuses an output. Pure.

A run is drawn from the clean outputs of one model, and its control arm from the control outputs: whole outputs, never
single tokens, since the tokens of one output are noisy together. Both are drawn with replacement, so that a resampled
run never has an output noisier than the noisiest one recorded. Jitter makes up for that: the arrays of each drawn
output are multiplied by a log-normal factor of its own. All four arrays are, so that they still fit together.

The resampled runs share their outputs. So an interval computed from them says how certain the rate is *for these
recorded outputs*; what other outputs would have shown it cannot say.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from bench.alarms import Alarms, total
from bench.recorded import Recorded
from harness.verify.judging.forcing import Forced
from harness.verify.judging.ruling import Ruling

Generator = np.random.Generator
Judge = Callable[[Sequence[Forced], Sequence[Forced]], Ruling | str]
"""The rule: of controls and served outputs."""

REQUESTS = (128, 300, 600, 1000, 2000)
"""Outputs of a resampled run."""
ARMS = (32, 64, 128, 192)
"""Outputs of its control arm."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The outputs from which runs are drawn."""

    controls: Sequence[Forced]
    served: Sequence[Forced]
    """None of them damaged."""
    controls_from_served: bool = False
    """Draw control arms from the served outputs. Such controls are as noisy as the load, which a real control arm, made
    when less else runs, may not be."""
    jitter: float = 0.0
    """Standard deviation of the logarithm of the factor of each output; 0 for none."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a resampled run."""

    requests: int
    controls: int


SIZES = tuple(Size(requests, controls) for requests in REQUESTS for controls in ARMS)


def draw_run(rng: Generator, pool: Pool, size: Size) -> tuple[list[Forced], list[Forced]]:
    """Controls and served outputs of one run."""
    controls, served = _apart(rng, pool, size) if pool.controls_from_served else (pool.controls, pool.served)
    return _draw(rng, controls, size.controls, pool.jitter), _draw(rng, served, size.requests, pool.jitter)


def _apart(rng: Generator, pool: Pool, size: Size) -> tuple[list[Forced], list[Forced]]:
    """The served outputs, split at random: the same output in the controls and in the load would hide its noise."""
    order = rng.permutation(len(pool.served))
    first = min(size.controls, len(order) // 2)
    return [pool.served[i] for i in order[:first]], [pool.served[i] for i in order[first:]]


def _draw(rng: Generator, outputs: Sequence[Forced], number: int, jitter: float) -> list[Forced]:
    drawn = [outputs[i] for i in rng.integers(len(outputs), size=number)]
    if not jitter:
        return drawn
    return [_scaled(one, factor) for one, factor in zip(drawn, rng.lognormal(sigma=jitter, size=number), strict=True)]


def _scaled(one: Forced, factor: float) -> Forced:
    return Forced(one.regret * factor, one.drift * factor, one.margin_error * factor, one.margin * factor)


def count_alarms(judge: Judge, pool: Pool, runs: int, seed: Sequence[int]) -> Mapping[Size, Alarms]:
    """Alarms by size. ``runs``: of all sizes together, dealt out in turn, so that sizes differ by one run at most."""
    return {size: _count(judge, pool, size, each, [*seed, *astuple(size)]) for size, each in _dealt(runs)}


def _dealt(runs: int) -> Iterator[tuple[Size, int]]:
    each, left = divmod(runs, len(SIZES))
    for index, size in enumerate(SIZES):
        yield size, each + (index < left)


def _count(judge: Judge, pool: Pool, size: Size, runs: int, seed: Sequence[int]) -> Alarms:
    rng = np.random.default_rng(seed)
    found = [judge(*draw_run(rng, pool, size)) for _ in range(runs)]
    rulings = [one for one in found if isinstance(one, Ruling)]
    return Alarms(sum(bool(one.wrong) for one in rulings), len(rulings), len(found) - len(rulings))


def pools(runs: Iterable[Recorded], *, all_clean: bool, controls_from_served: bool) -> dict[str, Pool]:
    """The outputs to draw runs from, by model. ``all_clean``: also take runs with damage, without what was damaged."""
    used = [run for run in runs if run.clean or all_clean]
    found = {}
    for model in sorted({run.model for run in used}):
        mine = [run for run in used if run.model == model]
        controls = [one for run in mine for one in run.control]
        served = [one for run in mine for one in run.outputs(damaged=False)]
        if len(served) > 1 and (controls or controls_from_served):
            found[model] = Pool(controls, served, controls_from_served)
    return found


@dataclass(frozen=True, slots=True)
class Resampled:
    """The alarms in runs drawn from the outputs of one model."""

    model: str
    pool: Pool
    by_size: Mapping[Size, Alarms]

    @property
    def name(self) -> str:
        """The model, and whether there is jitter."""
        return f"{self.model} with jitter {self.pool.jitter:g}" if self.pool.jitter else self.model

    @property
    def total(self) -> Alarms:
        """Of all sizes."""
        return total(self.by_size.values())

    def lines(self) -> Iterator[str]:
        """A table: a line for each number of outputs, a column for each number of controls."""
        yield f"{self.name}, from {len(self.pool.served):,} clean outputs: alarms / runs"
        yield f"{'':>15}" + "".join(f"{arm:>7} controls" for arm in ARMS)
        for requests in REQUESTS:
            cells = [self.by_size[Size(requests, arm)] for arm in ARMS]
            yield f"{requests:>7,} outputs" + "".join(f"{one.alarms:>9,} / {one.judged:>4,}" for one in cells)
        yield f"  in all: {self.total}"

    def as_json(self) -> dict[str, Any]:
        """The numbers."""
        sizes = [
            {"outputs": size.requests, "controls": size.controls, **one.as_json()} for size, one in self.by_size.items()
        ]
        return {"model": self.model, "jitter": self.pool.jitter, "total": self.total.as_json(), "sizes": sizes}


def resample(
    judge: Judge, found: Mapping[str, Pool], runs: int, seed: int, jitters: Sequence[float]
) -> Iterator[Resampled]:
    """``runs`` runs for each model and each jitter. What is drawn for a model does not depend on the other models."""
    for model, pool in found.items():
        own = [seed, *model.encode()]
        for jitter in jitters:
            used = replace(pool, jitter=jitter)
            yield Resampled(model, used, count_alarms(judge, used, runs, own))
