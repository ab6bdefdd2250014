"""Measures how often the check of outputs accuses a run that has only noise, and how often it finds damage. No server.

    python -m bench.false_alarms --runs 1000 --kinds student-3 mixture

A run is drawn at random: control outputs, the load's outputs, and the teacher forcing of every token. If an output is
accused, further controls are drawn and the run is judged again, as in verification (three rounds at most). Printed are
``near``: runs in 1,000 without damage in which an output crosses a near limit at first; ``alarm``: runs in 1,000
without damage that end invalid, of which one is allowed; ``found``: runs in 100 with one output served entirely with
wrong KV in which this output is accused.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.verify.asking.controls import FURTHER_CONTROLS
from harness.verify.asking.plan import ROUNDS_OF_CONFIRMATION
from harness.verify.asking.policy import CONTROL_OUTPUT
from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats
from harness.verify.judging.ruling import rule_on

Generator = np.random.Generator
Draw = Callable[[Generator, tuple[int, int, int]], Floats]
"""Draws errors of log-probabilities in nats, of shape (readings, outputs, tokens)."""
_READINGS = 4
"""Log-probabilities per token: of the leading two tokens, as served and as forced."""


def _stepped(step: float) -> Draw:
    return lambda rng, shape: np.round(rng.normal(scale=0.04, size=shape) / step) * step


def _mixture(rng: Generator, shape: tuple[int, int, int]) -> Floats:
    return rng.normal(size=shape) * np.where(rng.random(shape[1:]) < 0.02, 10.0, 1.0)


def _flips(rng: Generator, shape: tuple[int, int, int]) -> Floats:
    errors = rng.normal(scale=0.007, size=shape)
    errors[0] += (rng.random(shape[1:]) < 0.005) * rng.random(shape[1:]) * 0.125
    return errors


KINDS: Mapping[str, Draw] = {
    "gaussian": lambda rng, shape: rng.normal(size=shape) * 0.01,
    "exponential": lambda rng, shape: rng.laplace(size=shape) * 0.01,
    "student-3": lambda rng, shape: rng.standard_t(3, size=shape) * 0.01,
    "mixture": lambda rng, shape: _mixture(rng, shape) * 0.01,
    "steps-8": _stepped(1 / 8),
    "steps-16": _stepped(1 / 16),
    "dependent": lambda rng, shape: (rng.normal(size=(*shape[:2], 1)) + rng.normal(size=shape)) * 0.01,
    "scale-lognormal": lambda rng, shape: rng.normal(size=shape) * np.exp(rng.normal(size=(shape[1], 1))) * 0.01,
    "scale-student-3": lambda rng, shape: rng.normal(size=shape) * rng.standard_t(3, size=(shape[1], 1)) * 0.01,
    "flips": _flips,
}
"""Kinds of noise. The check was designed for none of them in particular; only the first two have thin tails."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of one run."""

    requests: int
    controls: int
    tokens: int
    """Tokens of each answer."""


SIZES = (
    *(Size(16, 32, 20), Size(16, 32, 60), Size(64, 80, 1), Size(64, 80, 8), Size(64, 32, 20)),
    *(Size(300, 64, 20), Size(2000, 80, 1), Size(2000, 192, 20)),
)


def draw_outputs(rng: Generator, kind: Draw, outputs: int, tokens: int, *, damaged: int = 0) -> list[Forced]:
    """``outputs`` outputs compared with their forcing; the first ``damaged`` were served entirely with wrong KV."""
    errors = kind(rng, (_READINGS, outputs, tokens))
    errors[0, :damaged] += rng.exponential(size=(damaged, tokens))
    best = -rng.exponential(0.4, (outputs, tokens))
    rival = best - rng.exponential(1.0, (outputs, tokens))
    served, forced = np.stack([best + errors[0], rival + errors[1]]), np.stack([best + errors[2], rival + errors[3]])
    first = np.where(served[0] >= served[1], 0, 1)[None]
    own, other = np.take_along_axis(forced, first, 0)[0], np.take_along_axis(forced, 1 - first, 0)[0]
    served_own, served_other = np.take_along_axis(served, first, 0)[0], np.take_along_axis(served, 1 - first, 0)[0]
    margin, lead = own - other, served_own - served_other
    columns = (np.maximum(-margin, 0.0), np.abs(served_own - own), np.abs(lead - margin), margin)
    return [Forced(*rows) for rows in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one run."""

    near: bool
    """Whether an output crossed a near limit before further controls were drawn."""
    accused: frozenset[int]
    """Indices of the outputs that are judged wrong in the end."""


def judge_run(rng: Generator, kind: Draw, size: Size, *, damaged: int = 0) -> Trial:
    """Draw a run, and judge it as verification does."""
    length = max(size.tokens, CONTROL_OUTPUT)
    control = draw_outputs(rng, kind, size.controls, length)
    served = draw_outputs(rng, kind, size.requests, size.tokens, damaged=damaged)
    near, accused = _judged(control, served)
    for _ in range(ROUNDS_OF_CONFIRMATION):
        if not accused:
            break
        control += draw_outputs(rng, kind, FURTHER_CONTROLS, length)
        accused = _judged(control, served)[1]
    return Trial(near, accused)


def _judged(control: Sequence[Forced], served: Sequence[Forced]) -> tuple[bool, frozenset[int]]:
    ruling = rule_on(control, served)
    return (False, frozenset()) if isinstance(ruling, str) else (bool(ruling.doubtful), frozenset(ruling.wrong))


def _rows(kinds: Sequence[str], sizes: Sequence[Size], runs: int, seed: int) -> Iterator[str]:
    for name in kinds:
        for size in sizes:
            rng = np.random.default_rng(seed)
            clean = [judge_run(rng, KINDS[name], size) for _ in range(runs)]
            bad = [judge_run(rng, KINDS[name], size, damaged=1) for _ in range(max(runs // 10, 1))]
            near, alarm = (sum(one.near for one in clean), sum(bool(one.accused) for one in clean))
            found = sum(0 in one.accused for one in bad)
            yield (
                f"{name:16} {size.requests:5} requests {size.controls:4} controls {size.tokens:3} tokens: "
                f"near {1000 * near / runs:6.1f}, alarm {1000 * alarm / runs:5.1f} in 1,000 of {runs:,} runs; "
                f"found {100 * found / len(bad):3.0f} in 100 of {len(bad):,}"
            )


def main() -> None:
    """Print a line for each kind of noise and size."""
    parser = argparse.ArgumentParser(prog="python -m bench.false_alarms", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="runs without damage per kind and size (default: 1000)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--most-requests", type=int, default=2000, help="skip runs with more requests (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    sizes = [size for size in SIZES if size.requests <= flags.most_requests]
    for row in _rows(flags.kinds, sizes, flags.runs, flags.seed):
        print(row, flush=True)


if __name__ == "__main__":
    main()
