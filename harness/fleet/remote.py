"""A worker as the main process sees it: a place where methods of a :class:`~harness.fleet.station.Station` run."""

from typing import Any, Protocol

from harness.errors import HarnessError


class WorkerLost(Exception):  # noqa: N818 - reads as what happened
    """The worker's process ended. The text says how, as in "was ended by signal 9 (SIGKILL)"."""


class Remote(Protocol):
    """One worker."""

    @property
    def name(self) -> str:
        """The worker's name: ``worker-0``, ..."""
        ...

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker's station.

        Raises:
            WorkerLost: the worker's process has ended.
            HarnessError: the method raised it, or failed otherwise.

        """
        ...

    async def close(self) -> None:
        """End the worker. Does nothing if it has ended."""
        ...


def failure(method: str, error: Exception) -> HarnessError:
    """The error to raise in the main process if a method failed in a worker."""
    if isinstance(error, HarnessError):
        return error
    return HarnessError(f"A worker failed in its method {method}: {type(error).__name__}: {error}")
