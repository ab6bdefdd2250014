"""Noise of many kinds, drawn at random, and outputs that show it. Pure.

The rule for outputs was designed for none of these kinds in particular.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats

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


def _cauchy_clipped(rng: Generator, shape: tuple[int, int, int]) -> Floats:
    """A tail heavier than the heaviest that the rule allows for, up to 5 nats."""
    return np.clip(rng.standard_t(2, size=shape) * 0.01, -5.0, 5.0)


def _bursts(rng: Generator, shape: tuple[int, int, int]) -> Floats:
    """In 5 % of the outputs, three consecutive tokens are 8 times as noisy."""
    _, outputs, tokens = shape
    after = np.arange(tokens) - rng.integers(max(tokens - 2, 1), size=(outputs, 1))
    struck = (rng.random((outputs, 1)) < 0.05) & (after >= 0) & (after < 3)
    return rng.normal(size=shape) * np.where(struck, 8.0, 1.0) * 0.01


def _drifting(rng: Generator, shape: tuple[int, int, int]) -> Floats:
    """Noise grows by a factor of 3 from the first output to the last. It does so in the controls too."""
    return rng.normal(size=shape) * np.linspace(1.0, 3.0, shape[1])[:, None] * 0.01


def _louder(share: float, factor: float) -> Draw:
    """A ``share`` of the outputs is ``factor`` times as noisy as a whole."""
    return lambda rng, shape: rng.normal(size=shape) * np.where(rng.random((shape[1], 1)) < share, factor, 1.0) * 0.01


def _alike(_rng: Generator, prompts: int) -> Floats:
    return np.ones(prompts)


def _some_louder(share: float, factor: float) -> Callable[[Generator, int], Floats]:
    return lambda rng, prompts: np.where(rng.random(prompts) < share, factor, 1.0)


@dataclass(frozen=True, slots=True)
class Noise:
    """A kind of noise."""

    draw: Draw
    prompts: Callable[[Generator, int], Floats] = _alike
    """How many times as noisy as others so many prompts are, whenever they are sent; of shape (prompts,)."""

    def __call__(self, rng: Generator, shape: tuple[int, int, int], loudness: Floats | None = None) -> Floats:
        """Errors in nats. ``loudness``: of the outputs' prompts, of shape (outputs,); None: those of other prompts."""
        louder = self.prompts(rng, shape[1]) if loudness is None else loudness
        return self.draw(rng, shape) * louder[:, None]


_DRAWN: Mapping[str, Draw] = {
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
    "cauchy-clipped": _cauchy_clipped,
    "bursts": _bursts,
    "drifting": _drifting,
    "two-servers": _louder(1 / 2, 3.0),
}
KINDS = {name: Noise(draw) for name, draw in _DRAWN.items()} | {
    "rare-prompts": Noise(_DRAWN["gaussian"], _some_louder(1 / 200, 5.0)),
}
"""Kinds of noise, by name."""


def draw_outputs(  # noqa: PLR0913 - the last two are optional and keyword-only
    rng: Generator, kind: Noise, outputs: int, tokens: int, *, damaged: int = 0, loudness: Floats | None = None
) -> list[Forced]:
    """``outputs`` outputs compared with their forcing; the first ``damaged`` were served entirely with wrong KV.

    ``loudness``: see :class:`Noise`.
    """
    errors = kind(rng, (_READINGS, outputs, tokens), loudness)
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
