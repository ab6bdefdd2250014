"""Nights that were never run: records with figures drawn from a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from bench.nightly.record import Night, Planned, Result, Run, State

JOBS = ("steady", "burst")
DEPLOYMENT = {"engine": '"vllm"', "model": "tiny", "servers": "decode prefill"}


@dataclass(frozen=True)
class Nights:
    """How many nights, and what is planted in them; nights are counted from 0."""

    number: int
    seed: int = 0
    first: date = date(2026, 1, 1)
    slower: Mapping[int, float] | None = None
    """From which night on which factor of p99 TTFT of ``steady``."""
    engines: Mapping[int, str] | None = None
    """From which night on which engine."""
    wrong: Sequence[int] = ()
    """Nights with wrong outputs of ``burst``."""
    failed: Mapping[int, str] | None = None
    """Nights that failed, with their reason."""
    missing: Sequence[int] = ()

    def make(self) -> tuple[Night, ...]:
        """The nights, the oldest first."""
        return tuple(self._night(number) for number in range(self.number) if number not in self.missing)

    def _night(self, number: int) -> Night:
        engine = _since(self.engines or {0: "vllm 0.32.0"}, number)
        name = (self.first + timedelta(days=number)).isoformat()
        planned = [Planned(job, 3, measured=True, flags=["--num-prompts", "256"]) for job in JOBS]
        why = (self.failed or {}).get(number)
        night = Night(
            name, State.ENDED, f"{name}T01:00:00+00:00", 1, "boot", number, planned, [], "0.1.0", "a" * 40,
            ended=f"{name}T01:12:30+00:00",
        )  # fmt: skip
        if why:
            night.result, night.exit_code, night.reasons = Result.FAILED, 4, [why]
            return night
        rng = np.random.default_rng([self.seed, number])
        factor = _since(self.slower or {0: 1.0}, number)
        usual = {job: float(rng.normal(1, 0.02)) for job in JOBS}
        night.runs = [
            self._run(job, repeat, number, usual[job] * (factor if job == "steady" else 1.0), rng, engine)
            for job in JOBS
            for repeat in (1, 2, 3)
        ]
        bad = number in self.wrong
        night.result, night.exit_code = (Result.INVALID, 1) if bad else (Result.VALID, 0)
        night.reasons = ["burst: outputs: 3 of 256 outputs differ from teacher forcing"] if bad else []
        return night

    def _run(  # noqa: PLR0917 - all are needed, and it is called once
        self, job: str, repeat: int, number: int, slow: float, rng: np.random.Generator, engine: str
    ) -> Run:
        wrong = 1.0 if job == "burst" and number in self.wrong else 0.0
        noise: Callable[[], float] = lambda: float(rng.normal(1, 0.01))  # noqa: E731 - one line, used thrice
        metrics = {
            "p99_ttft_ms": 40 * slow * noise(),
            "p50_itl_ms": 5 * noise() * float(rng.normal(1, 0.02)),
            "request_throughput": 120 * noise(),
            "completed": 256.0,
            "failed": 0.0,
            "wrong_outputs": wrong,
        }
        result = Result.INVALID if wrong else Result.VALID
        return Run(
            job, repeat, "", 20.0, int(bool(wrong)), int(bool(wrong)), result, [], [], metrics, dict(DEPLOYMENT), engine
        )


def _since(values: Mapping[int, Any], number: int) -> Any:
    return values[max(start for start in values if start <= number)]
