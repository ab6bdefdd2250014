"""What a fault is: the parts that each kind has."""

from typing import ClassVar, Protocol, runtime_checkable

from harness.faults.site import Site
from harness.history import Tolerated
from harness.scenario import Request


class NoEvidence(Exception):  # noqa: N818 - reads as what happened
    """It was not observed in time that the fault took hold, or was healed. The message says what was observed instead.

    A run that tested a fault without evidence is unknown, never valid.
    """


class Fault(Protocol):
    """One fault of one kind. Its first line of documentation is what ``python -m harness list`` shows."""

    kind: ClassVar[str]
    """The name in ``--fault``."""
    tolerates: tuple[Tolerated, ...]
    """What may happen to requests that overlap the fault."""

    @property
    def target(self) -> str:
        """What the fault is about: a server's name, ``proxy``, a link, ``load``."""
        ...

    @property
    def text(self) -> str:
        """What the fault does, as a clause: ``stop the process of decode-0 (SIGSTOP)``."""
        ...

    async def strike(self, site: Site) -> str:
        """Do it, wait until it is observed to have taken hold, and return what was observed, with figures.

        Raises NoEvidence. Whatever happens, ``heal`` is called afterwards.
        """
        ...

    async def heal(self, site: Site) -> str:
        """Undo it, wait until that is observed, and return what was observed. May be called when nothing was done.

        Raises NoEvidence.
        """
        ...


@runtime_checkable
class OfLoad(Protocol):
    """A fault that the load's own requests cause, from the first to the last. It has no times of its own.

    Its ``strike`` waits for the end of the load (``site.load``), and then looks for the evidence.
    """

    def changed(self, request: Request) -> Request:
        """The request of the load as it is sent under the fault."""
        ...

    async def before(self, site: Site) -> None:
        """Read what the evidence is compared with. Called before the first request is sent."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A fault that reads something before its moment comes, so that it loses no time when it has come."""

    async def prepare(self, site: Site) -> None:
        """Read it; called once, before the moment is waited for. ``strike`` must do without it, too."""
        ...
