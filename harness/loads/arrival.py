"""Open loops: when each request of a load is due, computed from the seed before the load begins. Pure.

Intervals are drawn from a gamma distribution, as ``vllm bench serve`` does. Its shape is the *burstiness* b, its mean
1/rate: the variance of an interval is 1/(b rate²). b = 1 makes Poisson arrivals, b < 1 bursts, b > 1 more even
arrivals, and an infinite b makes all intervals equal. For a rate that does not change, the times are then scaled so
that the last of n requests is due at n/rate: the load has exactly the rate that was asked for, whatever the seed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
"""Seconds after the beginning of the load, never falling; one for each request."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Requests at one rate."""

    rate: float
    """Requests per second, above 0 and finite."""
    burstiness: float = 1.0

    @property
    def size(self) -> int | None:
        """The number of requests that the schedule has; None: any number."""
        return None

    def times(self, number: int, rng: np.random.Generator) -> Times:
        """When each of ``number`` requests is due."""
        return _within(number, number / self.rate, self.burstiness, rng)

    @property
    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this."""
        yield from ("--request-rate", f"{self.rate:.15g}", *_burstiness(self.burstiness))

    @property
    def keys(self) -> dict[str, object]:
        """The keys of result.json, named as in ``vllm bench serve``."""
        return {"request_rate": self.rate, "burstiness": _json(self.burstiness)}

    def __str__(self) -> str:
        return f"{self.rate:g} requests per second, {_process(self.burstiness)}"


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rate that changes from the first request to the last: by equal amounts, or by equal factors."""

    strategy: str
    """``linear`` or ``exponential``."""
    start: float
    end: float
    """Requests per second, above 0 and finite."""
    burstiness: float = 1.0

    @property
    def size(self) -> int | None:
        """The number of requests that the schedule has; None: any number."""
        return None

    def times(self, number: int, rng: np.random.Generator) -> Times:
        """When each of ``number`` requests is due. Not scaled: the sum of the intervals varies with the seed."""
        progress = np.arange(number) / max(number - 1, 1)
        if self.strategy == "linear":
            rates = self.start + (self.end - self.start) * progress
        else:
            rates = self.start * (self.end / self.start) ** progress
        return np.asarray(np.cumsum(_intervals(number, self.burstiness, rng) / rates), np.float64)

    @property
    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this."""
        yield from ("--ramp-up-strategy", self.strategy, "--ramp-up-start-rps", f"{self.start:.15g}")
        yield from ("--ramp-up-end-rps", f"{self.end:.15g}", *_burstiness(self.burstiness))

    @property
    def keys(self) -> dict[str, object]:
        """The keys of result.json, named as in ``vllm bench serve``."""
        ramp = {"ramp_up_strategy": self.strategy, "ramp_up_start_rps": self.start, "ramp_up_end_rps": self.end}
        return {"request_rate": "inf", "burstiness": _json(self.burstiness), **ramp}

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g} requests per second ({self.strategy}), {_process(self.burstiness)}"


@dataclass(frozen=True, slots=True)
class Stages:
    """One rate after another, each for some time."""

    stages: tuple[tuple[float, float], ...]
    """Rate in requests per second (0: a pause) and seconds of each stage."""
    burstiness: float = 1.0

    @property
    def size(self) -> int:
        """The number of requests of all stages."""
        return sum(round(rate * seconds) for rate, seconds in self.stages)

    def times(self, number: int, rng: np.random.Generator) -> Times:
        """When each request is due, the first ``number`` of them."""
        times, began = [np.zeros(0)], 0.0
        for rate, seconds in self.stages:
            times.append(began + _within(round(rate * seconds), seconds, self.burstiness, rng))
            began += seconds
        return np.concatenate(times)[:number]

    @property
    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this."""
        stages = ",".join(f"{rate:.15g}:{seconds:.15g}s" for rate, seconds in self.stages)
        yield from ("--stages", stages, *_burstiness(self.burstiness))

    @property
    def keys(self) -> dict[str, object]:
        """The keys of result.json; ``request_rate`` is the mean rate."""
        rate = self.size / sum(seconds for _, seconds in self.stages)
        stages = [{"rate": rate, "duration": seconds} for rate, seconds in self.stages]
        return {"request_rate": rate, "burstiness": _json(self.burstiness), "stages": stages}

    def __str__(self) -> str:
        stages = ", then ".join(f"{rate:g} requests per second for {seconds:g} s" for rate, seconds in self.stages)
        return f"{stages}, {_process(self.burstiness)}"


Arrival = Steady | Ramp | Stages


def _within(number: int, seconds: float, burstiness: float, rng: np.random.Generator) -> Times:
    """The times of ``number`` requests, the last of which is due after so many seconds."""
    times = np.asarray(np.cumsum(_intervals(number, burstiness, rng)), np.float64)
    # With a very small burstiness, all intervals may be drawn as 0.
    return times * (seconds / times[-1]) if number and times[-1] > 0 else times


def _intervals(number: int, burstiness: float, rng: np.random.Generator) -> Times:
    """Intervals with a mean of 1."""
    if math.isinf(burstiness):
        return np.ones(number)
    return rng.gamma(burstiness, 1.0 / burstiness, size=number)


def _burstiness(value: float) -> Iterator[str]:
    if value != 1.0:
        yield from ("--burstiness", f"{value:.15g}")


def _json(burstiness: float) -> float | str:
    return "inf" if math.isinf(burstiness) else burstiness


def _process(burstiness: float) -> str:
    if burstiness == 1.0:
        return "Poisson arrivals"
    return "equal intervals" if math.isinf(burstiness) else f"burstiness {burstiness:g}"
