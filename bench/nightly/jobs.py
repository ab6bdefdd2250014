"""What a night may run: named lists of the harness's flags."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_NOT_A_LOAD = ("--fault", "--faults", "--workload", "--sweep")
"""Flags of jobs whose latencies say little: they depend on faults, on many workloads, or on many rates."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a night. A changed job gets a new name, so that nights can be compared by name."""

    name: str
    flags: tuple[str, ...]
    """Flags of ``python -m harness run``."""
    repeat: int = 1
    """How often it runs in a night. From the repeats a comparison learns how much runs of the same build differ."""
    own_deployment: bool = False
    """Whether each run launches a deployment of its own. Faults on servers need that: the harness stops and ends only
    processes that it started itself."""
    timeout: float | None = None
    """Seconds after which a run is ended; None: those of ``--job-timeout``."""

    @property
    def measured(self) -> bool:
        """Whether its latencies and rates can be compared with those of other nights."""
        return not any(flag.partition("=")[0] in _NOT_A_LOAD for flag in self.flags)


def _load(*flags: str) -> tuple[str, ...]:
    return ("--num-prompts", *flags)


_FAULTS = ("pause:server=decode-0,after=0.5,for=1", "kill:server=prefill-0,ended=60,for=1", "cancel:share=0.1")

READY: Mapping[str, Job] = {
    job.name: job
    for job in (
        Job("steady", _load("256", "--concurrency", "16"), repeat=5),
        Job("burst", _load("256", "--concurrency", "128")),
        Job("short_prompts", _load("256", "--concurrency", "32", "--random-input-len", "4:40")),
        Job("long_prompts", _load("48", "--concurrency", "8", "--random-input-len", "800:2000")),
        Job("catalogue", ("--workload", "*", "--all-deployments"), own_deployment=True),
        Job(
            "faults",
            (*_load("192", "--concurrency", "16"), *(word for one in _FAULTS for word in ("--fault", one))),
            own_deployment=True,
        ),
        Job("pairs", ("--workload", "pairs", "--all-deployments"), own_deployment=True),
    )
}
"""The jobs that can be named without a file."""


def usual(*, attached: bool) -> tuple[Job, ...]:
    """The jobs of a night for which none were named: all that the deployment allows."""
    return tuple(job for job in READY.values() if not (attached and job.own_deployment))


def need_a_launch(jobs: Iterable[Job]) -> Sequence[str]:
    """Names of the jobs that launch a deployment, which words that attach leave them no way to do."""
    return [job.name for job in jobs if job.own_deployment]
