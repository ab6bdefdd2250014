"""The register of workloads, in which a decorator enters functions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import cleandoc

from harness.catalogue.builder import Builder
from harness.catalogue.needs import Needs
from harness.catalogue.setting import Setting
from harness.errors import HarnessError
from harness.scenario import Phase, Scenario, Situation
from harness.verdict import KnownFault

Writer = Callable[[Builder], Iterable[Phase]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload: called with a setting, it returns a scenario, the same for the same setting."""

    name: str
    family: str
    summary: str
    """What the workload sends, in one line."""
    hunts: str
    """Which bugs the workload finds."""
    needs: Needs
    home: str
    """The preset (`harness.catalogue.presets`) of the deployment that the workload is made for."""
    provokes: Situation | None
    """What must occur, or the workload has tested nothing; None: what it sends is enough."""
    known_fault: KnownFault | None
    """A fault of the engine that the workload is known to find: which versions have it, and the evidence."""
    write: Writer
    alone: bool = False
    """Whether it may end a server: it runs on a deployment of its own, launched for it, and never beside others."""

    def __call__(self, setting: Setting) -> Scenario:
        """The scenario. `harness.verify.asking` verifies its answers."""
        return Scenario(self.name, f"{self.summary}\n\n{self.hunts}", tuple(self.write(Builder(self.name, setting))))


CATALOGUE: dict[str, Workload] = {}
"""All registered workloads by name, in the order of registration."""


def workload(  # noqa: PLR0913 - what a workload is; keyword-only, and all but one have defaults
    *,
    family: str,
    needs: Needs | None = None,
    home: str = "multi",
    provokes: str | tuple[str, ...] = (),
    waits: float = 0.0,
    known_fault: KnownFault | None = None,
    alone: bool = False,
) -> Callable[[Writer], Workload]:
    """Register a function as a workload. Its docstring's first line is the summary, the rest says what it hunts.

    ``provokes``: one or several counters, and ``waits``: see :class:`harness.scenario.Situation`.
    """
    counters = (provokes,) if isinstance(provokes, str) else provokes
    situation = Situation(counters, waits) if counters or waits else None

    def register(write: Writer) -> Workload:
        name = write.__name__
        summary, _, hunts = cleandoc(write.__doc__ or "").partition("\n")
        if name in CATALOGUE or not summary or not hunts:
            needed = "a unique name, and a docstring with a summary line and what it hunts"
            raise HarnessError(f"The workload {name} needs {needed}.")
        limits = needs or Needs()
        entry = Workload(name, family, summary, hunts.strip(), limits, home, situation, known_fault, write, alone)
        CATALOGUE[name] = entry
        return entry

    return register
