"""Workers that are actors of a Ray cluster, spread over its nodes. Ray is imported here only, and only when needed.

Every node needs the harness in the same version: ``pip install 'pd-harness[ray]'``.
"""

import asyncio
import importlib.util
import logging
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.fleet.remote import Remote, WorkerLost, failure
from harness.fleet.station import Station
from harness.run.started import installed_version

_ANSWERS_WITHIN_S = 5.0
"""Seconds until a cluster accepts a connection. Ray itself tries for minutes."""
_NO_CLUSTER = (
    "No Ray cluster can be used at {address}: {why} Start one with `ray start --head`, and name its address with --ray "
    "HOST:PORT, or --ray auto on one of its nodes."
)
_STARTS_WITHIN_S = 60.0
"""Seconds until a worker runs: Ray waits forever for free cores."""


def require_ray() -> None:
    """Raise UsageError if Ray is not installed. Does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--ray needs Ray, which is not installed here: pip install 'pd-harness[ray]'.")


class RayWorker:
    """A worker that is an actor."""

    def __init__(self, name: str, actor: Any) -> None:
        self._name = name
        self._actor = actor

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._name

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the station, as in :class:`Remote`."""
        from ray.exceptions import RayActorError, RayTaskError  # noqa: PLC0415 - an optional extra

        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayActorError as error:
            raise WorkerLost(f"is no longer running in the Ray cluster ({_first_line(error)})") from error
        except RayTaskError as error:
            cause = error.cause
            raise failure(method, cause if isinstance(cause, Exception) else error) from error

    async def close(self) -> None:
        """End the actor. Ray ends it by itself if the main process is gone."""
        import ray  # noqa: PLC0415 - an optional extra

        ray.kill(self._actor)


@asynccontextmanager
async def ray_workers(address: str, number: int | None) -> AsyncIterator[list[Remote]]:
    """Workers on a Ray cluster, ended at the end. ``number``: None for one on each node.

    Raises UsageError if Ray is not installed, if no cluster answers at ``address``, or if it has too few free cores.
    """
    require_ray()
    await _answers(address)
    import ray  # noqa: PLC0415 - an optional extra

    with _connected(ray, address):
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        actor = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Station)
        workers = [RayWorker(f"worker-{index}", actor.remote()) for index in range(number or nodes)]
        try:
            await _running(workers, address)
            yield [*workers]
        finally:
            for worker in workers:
                await worker.close()


async def _answers(address: str) -> None:
    """Raise UsageError if nothing accepts connections at an address with a port."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
    except (OSError, TimeoutError) as error:
        why = f"it does not answer ({type(error).__name__})."
        raise UsageError(_NO_CLUSTER.format(address=address, why=why)) from error


async def _running(workers: list[RayWorker], address: str) -> None:
    """Wait until all workers run."""
    try:
        async with asyncio.timeout(_STARTS_WITHIN_S):
            versions = await asyncio.gather(*(worker.call("hello") for worker in workers))
    except TimeoutError:
        raise UsageError(
            f"The Ray cluster at {address} did not start {len(workers)} workers within {_STARTS_WITHIN_S:.0f} s. Each "
            "of them needs a free core: use fewer with --workers, or a larger cluster."
        ) from None
    except WorkerLost as lost:
        raise HarnessError(
            f"A worker {lost}. Is the harness installed on every node of the cluster, in the same version? "
            "pip install 'pd-harness[ray]'"
        ) from lost
    if others := set(versions) - {installed_version()}:
        raise UsageError(
            f"The Ray cluster at {address} has version {others.pop()} of the harness on a node, and this machine has "
            f"{installed_version()}: install the same version on all of them."
        )


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    with _own_signals():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(_NO_CLUSTER.format(address=address, why=_first_line(error))) from error
    try:
        _print_nothing(ray)
        yield
    finally:
        ray.shutdown()


def _print_nothing(ray: Any) -> None:
    """Keep Ray's messages about dead workers off our standard output, which is the report: it says so itself.

    Ray has no public setting for them; its own debugger uses this one. Where it is missing, messages are printed.
    """
    if hasattr(ray, "_private"):
        ray._private.worker._worker_logs_enabled = False  # noqa: SLF001 - see above


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our own handler of SIGTERM, which ends everything in order; Ray would replace it by an exit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
