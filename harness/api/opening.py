"""Opens a deployment, with and without ``await``, and keeps it until it is closed."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from harness.api.deployment import AsyncRunningDeployment
from harness.api.loop import LoopThread
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.deploy.target import Target
from harness.observer import RunObserver, complete
from harness.reports import Report

P = ParamSpec("P")


def _awaiting(
    method: Callable[Concatenate[AsyncRunningDeployment, P], Coroutine[Any, Any, Report]],
) -> Callable[Concatenate["RunningDeployment", P], Report]:
    """The method without ``await``."""

    @wraps(method)
    def call(self: "RunningDeployment", /, *args: P.args, **kwargs: P.kwargs) -> Report:
        return self._loop.call(method(self._deployment, *args, **kwargs))

    return call


class RunningDeployment:
    """A deployment that is ready, opened by ``launch``, ``attach`` or ``simulate``. ``close`` ends it.

    ``run`` and ``run_workloads`` take and return what those of :class:`harness.AsyncRunningDeployment` do, and need no
    ``await``.
    """

    def __init__(self, loop: LoopThread, deployment: AsyncRunningDeployment, stack: ExitStack) -> None:
        self._loop, self._deployment, self._stack = loop, deployment, stack
        self.facts = deployment.facts
        """The known facts of the deployment: servers, URLs, block sizes, connectors, model."""
        self.processes = deployment.processes
        """The processes that the harness started, by name; None: it attached to a running deployment."""

    run = _awaiting(AsyncRunningDeployment.run)
    run_workloads = _awaiting(AsyncRunningDeployment.run_workloads)

    def close(self) -> None:
        """End everything that was launched. A second call does nothing."""
        self._stack.close()


class Opening:
    """A deployment that is not open yet: use it in ``with`` or ``async with``, or call ``open``."""

    def __init__(self, target: Target, *, log_dir: str | Path | None, observer: RunObserver) -> None:
        self._target, self._log_dir, self._observer = target, log_dir, complete(observer)
        self._opened: Any = None

    def open(self) -> RunningDeployment:
        """Launch or attach, and warm up. ``close`` of the returned deployment ends it.

        Raises:
            UsageError: the user must change something: a URL, a model, a port, a missing engine.
            DeployError: a server did not start.

        """
        with ExitStack() as stack:
            loop = LoopThread()
            stack.callback(loop.close)
            deployment = stack.enter_context(loop.inside(self._open()))
            return RunningDeployment(loop, deployment, stack.pop_all())

    def __enter__(self) -> RunningDeployment:
        self._opened = deployment = self.open()
        return deployment

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    async def __aenter__(self) -> AsyncRunningDeployment:
        self._opened = self._open()
        deployment: AsyncRunningDeployment = await self._opened.__aenter__()
        return deployment

    async def __aexit__(self, *error: object) -> None:
        await self._opened.__aexit__(*error)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[AsyncRunningDeployment]:
        directory = Path(tempfile.mkdtemp(prefix="pd-harness-") if self._log_dir is None else self._log_dir)
        around = Surroundings(directory, MonotonicClock(), self._observer)
        async with open_session(self._target, around) as session:
            yield AsyncRunningDeployment(
                session.deployment, self._target, self._observer, session.died, session.nursery, session.relaying
            )
            died = session.died()
        # After a failure the directory is kept, since messages name a log in it.
        if self._log_dir is None and not died:
            shutil.rmtree(directory, ignore_errors=True)
