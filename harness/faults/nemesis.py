"""Carries out planned faults beside a load, and writes every step into the history.

Rule 1: whatever happens, a fault that was begun is healed: if its evidence was not observed, if the load ends earlier,
        if the run is interrupted.
Rule 2: a fault that could not be begun, because the load was over, leaves ``FaultPlanned`` alone in the history, and
        the run is unknown.
Rule 3: while a fault is at work, clients whose requests fail do not go on at once (spacing.py), so that the load
        outlasts the fault.
Rule 4: faults that take turns (turns.py) keep theirs until the load is served again, and the load lasts until they are
        over.
Rule 5: what a fault does wrong itself (an unforeseen error in its code) is recorded as missing evidence, and raised.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from harness.faults.fault import Fault, NoEvidence, OfLoad, Prepared
from harness.faults.load_watch import LoadWatch
from harness.faults.plan import FaultPlan
from harness.faults.site import Site
from harness.faults.spacing import Spacing
from harness.faults.turns import Turns
from harness.history import Entry, FaultBegan, FaultHealed, FaultPlanned, FaultProved
from harness.observer import SILENT, RunObserver
from harness.run.runner import Loading, PhaseRun

Task = asyncio.Task[None]
_SERVED_WITHIN_S = 60.0
"""Seconds after the healing for which a fault keeps its turn, at most, while no request is served."""
_POLL_S = 0.05


class Nemesis:
    """The faults of one run."""

    def __init__(
        self,
        plans: Sequence[FaultPlan],
        site: Site,
        record: Callable[[Entry], None],
        observer: RunObserver = SILENT,
    ) -> None:
        self._site = site
        self._record = record
        self._observer = observer
        self._spacing = Spacing(site.clock)
        self._turns = Turns()
        self._plans = dict(zip(_names(plans), plans, strict=True))
        self._lasting: list[asyncio.Task[None]] = []
        """The faults that stay at work when the load has ended."""

    def beside(self, load: Loading) -> Loading:
        """The same loading; the faults are carried out while it sends, in each phase with requests of the load."""

        async def loading(run: PhaseRun) -> None:
            await self.end()
            if not (run.phase.faulted and self._plans):
                await load(run)
                return
            self._plan(run)
            watch = LoadWatch()
            site = replace(self._site, load=watch)
            run.record = watch.beside(run.record)
            for plan in self._plans.values():
                if isinstance(plan.fault, OfLoad):
                    await plan.fault.before(site)
            run.after_failure = partial(self._spacing.after_failure, partial(_left, run))
            carried = {name: self._carry_out(name, plan, site, run) for name, plan in self._plans.items()}
            tasks = {name: asyncio.create_task(one) for name, one in carried.items()}
            self._lasting = [tasks[name] for name, plan in self._plans.items() if plan.outlasts_load]
            waited_for = [tasks[name] for name, plan in self._plans.items() if plan.alone is not None]
            run.goes_on = lambda: not all(task.done() for task in waited_for)
            try:
                await load(run)
                watch.over.set()
                await asyncio.gather(*self._of_load([*tasks.values()]), return_exceptions=True)
            except BaseException:
                await self.end()
                raise
            finally:
                # Healing must have ended before anything else is sent.
                await _ended([task for task in tasks.values() if task not in self._lasting])

        return loading

    async def end(self) -> None:
        """Heal the faults that are still at work."""
        lasting, self._lasting = self._lasting, []
        await _ended(lasting)

    def _plan(self, run: PhaseRun) -> None:
        now, where = self._site.clock.now(), (run.scenario, run.phase.name)
        for name, plan in self._plans.items():
            fault = plan.fault
            told = FaultPlanned(now, name, fault.kind, fault.target, plan.text, fault.tolerates, *where, plan.provokes)
            self._record(told)

    def _of_load(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks of faults that look for their evidence when the load is over."""
        plans = zip(tasks, self._plans.values(), strict=True)
        return [task for task, plan in plans if isinstance(plan.fault, OfLoad)]

    async def _carry_out(self, name: str, plan: FaultPlan, site: Site, run: PhaseRun) -> None:
        # A fault that takes turns may find another process than there is now.
        if plan.alone is None:
            await _prepare(plan, site)
        when = await plan.moment.come(site, plan.fault.target, run)
        async with self._turns.turn(plan.fault.target, plan.alone):
            if plan.alone is not None:
                await _prepare(plan, site)
            await self._strike(name, plan, site, when)
            if plan.alone is not None:
                await self._until_served(site)

    async def _until_served(self, site: Site) -> None:
        """Wait until a request completes that is sent from now on."""
        load, healed_at = site.load, site.clock.now()
        while load and load.newest_served < healed_at and site.clock.now() < healed_at + _SERVED_WITHIN_S:
            await site.clock.sleep(_POLL_S)

    async def _strike(self, name: str, plan: FaultPlan, site: Site, when: str) -> None:
        now = self._site.clock.now
        if not isinstance(plan.fault, OfLoad):
            self._spacing.began()
        self._record(FaultBegan(now(), name))
        self._observer.note(f"fault {name}: {plan.fault.text}")
        missing = ""
        try:
            observed = await _observed(plan.fault, site)
            evidence = "; ".join(filter(None, (when, observed)))
            self._record(FaultProved(now(), name, evidence))
            self._observer.note(f"fault {name}: {evidence}")
            await self._site.clock.sleep(plan.seconds)
        except NoEvidence as error:
            missing = str(error)
        finally:
            await _unbroken(self._heal(name, plan, lambda: missing))

    async def _heal(self, name: str, plan: FaultPlan, missing: Callable[[], str]) -> None:
        healed, text = True, ""
        try:
            text = await plan.fault.heal(self._site)
        except Exception as error:  # noqa: BLE001 - the history must say that the fault may still be at work
            healed, text = False, str(error) or type(error).__name__
        if missing():
            text = f"it was not observed that the fault took hold: {missing()}; {text}"
        if not isinstance(plan.fault, OfLoad):
            self._spacing.healed()
        self._record(FaultHealed(self._site.clock.now(), name, healed, text))
        self._observer.note(f"fault {name}: {text}")


async def _observed(fault: Fault, site: Site) -> str:
    """Strike; returns what was observed. Raises NoEvidence if nothing was: that its moment had come is no evidence."""
    if observed := await fault.strike(site):
        return observed
    raise NoEvidence("nothing was observed")


async def _prepare(plan: FaultPlan, site: Site) -> None:
    if isinstance(plan.fault, Prepared):
        await plan.fault.prepare(site)


async def _ended(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel the tasks, in which healing goes on, and wait for their ends. Raises the first error of one of them."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _unbroken(healing: Coroutine[Any, Any, None]) -> None:
    """Wait for the healing to end, also if this task is cancelled meanwhile; then pass the cancellation on."""
    task = asyncio.create_task(healing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _left(run: PhaseRun) -> float:
    """The share of the phase's requests that have not ended."""
    return 1 - run.ended / max(1, len(run.phase.requests))


def _names(plans: Sequence[FaultPlan]) -> list[str]:
    """A name for each fault: its kind and a number."""
    seen = Counter[str]()
    names = []
    for plan in plans:
        seen[plan.fault.kind] += 1
        names.append(f"{plan.fault.kind}-{seen[plan.fault.kind]}")
    return names
