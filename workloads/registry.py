"""The catalogue's register: what a workload is, and how a function becomes one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from inspect import cleandoc

from harness.errors import HarnessError
from harness.scenario import Phase, Request, Route, Scenario
from workloads.case import Case
from workloads.needs import Needs
from workloads.reference import reference_phase
from workloads.setting import Setting

Writer = Callable[[Case], Iterable[Phase]]

REFERENCE_CONCURRENCY = 32
"""References are sent together as far as a server's batch goes."""
_PREPARES = 1
"""A direct request for one token prepares a cache; its output is nobody's question."""


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
    """The recipe (`workloads.recipes`) of a deployment that it is made for."""
    provokes: str | None
    """A counter that must have grown on some server, or the case did not happen: ``preemptions``."""
    known_fault: str | None
    """Where the engine itself was seen to be wrong: which version, and the evidence."""
    write: Writer

    def __call__(self, setting: Setting) -> Scenario:
        """The scenario, its references last."""
        case = Case(self.name, setting)
        phases = tuple(self.write(case))
        references = tuple(_to_verify(phases))
        if references:
            phases += (_references(references, case.salt),)
        return Scenario(self.name, f"{self.summary}\n\n{self.hunts}", phases)


CATALOGUE: dict[str, Workload] = {}
"""By name, in the order of registration."""


def workload(
    *,
    family: str,
    needs: Needs | None = None,
    home: str = "multi",
    provokes: str | None = None,
    known_fault: str | None = None,
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


def _to_verify(phases: Iterable[Phase]) -> Iterator[Request]:
    """Whatever comes through the proxy, and longer answers of servers asked directly."""
    for request in (request for phase in phases for request in phase.requests):
        prepares = request.route is not Route.PROXY and request.sampling.max_tokens <= _PREPARES
        if request.expect_status is None and request.reference_for is None and not prepares:
            yield request


def _references(requests: tuple[Request, ...], salt: str) -> Phase:
    phase = reference_phase(requests, concurrency=REFERENCE_CONCURRENCY, salt=f"{salt}-reference")
    return replace(phase, requests=tuple(map(_plainly, phase.requests)))


def _plainly(reference: Request) -> Request:
    """Not streamed, for only its outcome matters; and a reference that asks for its prompt's is a teacher forcing."""
    return replace(reference, stream=False, sampling=replace(reference.sampling, prompt_logprobs=None))
