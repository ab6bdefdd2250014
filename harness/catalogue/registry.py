"""The catalogue's register: what a workload is, and how a function becomes one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import cleandoc

from harness.catalogue.builder import Case
from harness.catalogue.needs import Needs
from harness.catalogue.setting import Setting
from harness.errors import HarnessError
from harness.scenario import Phase, Scenario
from harness.verdict import KnownFault

Writer = Callable[[Case], Iterable[Phase]]


@dataclass(frozen=True, slots=True)
class Workload:
    """One case of the catalogue: called with a setting it gives the scenario, the same every time."""

    name: str
    family: str
    summary: str
    """What it does, in a line."""
    hunts: str
    """Which bug, in some more lines."""
    needs: Needs
    home: str
    """The preset (`harness.catalogue.presets`) of the deployment that it is made for."""
    provokes: str | None
    """A counter that must have grown on some server, or the case did not happen: ``preemptions``."""
    known_fault: KnownFault | None
    """Where the engine itself was seen to be wrong: which version, and the evidence."""
    write: Writer

    def __call__(self, setting: Setting) -> Scenario:
        """The scenario; `harness.verify.asking` verifies what it was answered."""
        return Scenario(self.name, f"{self.summary}\n\n{self.hunts}", tuple(self.write(Case(self.name, setting))))


CATALOGUE: dict[str, Workload] = {}
"""By name, in the order of registration."""


def workload(
    *,
    family: str,
    needs: Needs | None = None,
    home: str = "multi",
    provokes: str | None = None,
    known_fault: KnownFault | None = None,
) -> Callable[[Writer], Workload]:
    """Register a function as the workload of its name. Its docstring's first line is the summary."""

    def register(write: Writer) -> Workload:
        name = write.__name__
        summary, _, hunts = cleandoc(write.__doc__ or "").partition("\n")
        if name in CATALOGUE or not summary or not hunts:
            raise HarnessError(f"The workload {name} needs a name of its own, a summary line, and what it hunts.")
        entry = Workload(name, family, summary, hunts.strip(), needs or Needs(), home, provokes, known_fault, write)
        CATALOGUE[name] = entry
        return entry

    return register
