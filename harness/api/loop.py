"""An event loop in its own thread, for callers that are not asynchronous: tests, notebooks, scripts."""

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines, one at a time, until ``close``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pd-harness", daemon=True)
        self._thread.start()

    def call(self, work: Awaitable[T]) -> T:
        """Run ``work`` to its end. Ctrl-C cancels it, waits until it has cleaned up, and is raised again."""

        async def run() -> T:
            return await work

        try:
            return asyncio.run_coroutine_threadsafe(run(), self._loop).result()
        except KeyboardInterrupt:
            asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
            raise

    @contextmanager
    def inside(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """The asynchronous context manager as a plain one, run on the loop."""
        value = self.call(manager.__aenter__())
        try:
            yield value
        finally:
            self.call(manager.__aexit__(None, None, None))

    def close(self) -> None:
        """End the loop and its thread."""
        self.call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
