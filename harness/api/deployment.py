"""Runs on a deployment that was launched or attached to."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.api.storing import predicting, reported, storing
from harness.api.words import load_words, target_words, workers_words
from harness.beside import Beside
from harness.catalogue.choice import choose
from harness.clock import MonotonicClock
from harness.deploy.relaying import Relaying
from harness.deploy.target import Target
from harness.errors import UsageError
from harness.facts import Deployment
from harness.faults import (
    FaultPlan,
    Nemesis,
    Processes,
    Site,
    control_of,
    faults_of_workloads,
    joined,
    parse_fault,
    under_faults,
)
from harness.fleet import Workers, open_fleet
from harness.history import DeadProcess, Entry
from harness.load.extra_body import checked
from harness.loads import Load, RandomLoad
from harness.observe.values import values_now
from harness.observer import RunObserver
from harness.reports import LoadSettings, Report
from harness.reports.rows import AS_GIVEN, rows_of, skipped_row
from harness.run import Carried, Recorder, Sending, carry_out, fit, fresh_salt, run_started_now, with_tokens
from harness.run.runner import load_here
from harness.run.transport import METRICS_INTERVAL, REQUEST_TIMEOUT, SETTLE_TIMEOUT
from harness.scenario import Scenario
from harness.store import RunStore
from harness.verify.asking import VerifyOptions, VerifyPolicy
from harness.verify.asking.policy import DEFAULT


@dataclass(frozen=True, slots=True)
class AsyncRunningDeployment:
    """A deployment that is ready. :class:`harness.RunningDeployment` has the same methods without ``await``."""

    facts: Deployment
    """The known facts of the deployment: servers, URLs, block sizes, connectors, model."""
    _target: Target
    _observer: RunObserver
    _died: Callable[[], tuple[DeadProcess, ...]]
    _processes: Processes
    _relaying: Relaying = field(default_factory=Relaying)

    @property
    def processes(self) -> Processes | None:
        """The processes that the harness started, by name (``prefill-0``, ``proxy``); None: it attached to others."""
        return self._processes

    async def run(  # noqa: PLR0913 - all have defaults
        self,
        load: Load | None = None,
        *,
        verify: str = DEFAULT,
        probe_tiers: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        settle_timeout: float = SETTLE_TIMEOUT,
        metrics_interval: float = METRICS_INTERVAL,
        goodput: Mapping[str, float] | None = None,
        faults: Sequence[str] = (),
        workers: int | None = None,
        ray: str | None = None,
        result_dir: str | Path | None = None,
        label: str = "",
    ) -> Report:
        """Send a load, verify the answers, and judge.

        Args:
            load: ``RandomLoad``, ``NaturalLoad``, ``PrefixRepetitionLoad``, ``ShareGptLoad``, ``DatasetLoad`` or
                ``TraceLoad``; default: ``RandomLoad()``. Each may have an ``arrival``: ``Steady``, ``Ramp`` or
                ``Stages``.
            goodput: the latencies that a good request keeps, in milliseconds: ``{"ttft": 200, "tpot": 50}``.
            verify: which outputs are verified by teacher forcing: ``all``, ``sample:N`` outputs, ``budget:PCT%`` of
                the load's tokens and 2.5 times that share of its time, or ``budget:60s`` (also ``2m``).
            probe_tiers: allow emptying the prefix caches of servers that the harness did not launch, after the load,
                so that their offload tiers are verified too.
            extra_body: fields added to every request's body.
            request_timeout: seconds from sending a request to the end of its answer.
            settle_timeout: seconds for which the servers may need to settle before and after the load.
            metrics_interval: seconds between readings of the servers' /metrics during the load; 0: none.
            faults: what is done to the deployment during the load, as for ``--fault``: ``pause:server=decode-0,for=3``.
                Afterwards every prompt is asked again, through each cache.
            workers: processes that send the load; default: this process, or a worker on each node with ``ray``.
            ray: the address of a Ray cluster on which the workers run: ``HOST:PORT``, or ``auto`` on one of its nodes.
            result_dir: store the run in a new directory inside this one, as the command line does; None: do not store.
            label: part of the new directory's name.

        Raises:
            UsageError: the load does not fit the deployment, the dataset cannot be read, or there are no such workers.

        """
        fleet = _workers(workers, ray)
        load = await with_tokens(load or RandomLoad(), self.facts, self._target.headers)
        salt = fresh_salt()
        sending = Sending(
            self._target.headers,
            request_timeout,
            settle_timeout,
            checked(extra_body or {}),
            metrics_interval=_interval(metrics_interval),
        )
        how = VerifyOptions(
            policy=VerifyPolicy.parse(verify),
            salt=salt,
            seed=load.seed,
            concurrency=load.concurrency,
            probe_tiers=self.facts.launched or probe_tiers,
        )
        plans = tuple(map(parse_fault, faults))
        argv = (*load_words(load), "--verify", verify, *(["--probe-tiers"] if probe_tiers else []))
        argv += tuple(workers_words(fleet))
        argv += tuple(["--goodput", *(f"{name}:{ms:.15g}" for name, ms in goodput.items())] if goodput else [])
        argv += tuple(word for fault in faults for word in ("--fault", fault))
        scenario = load.scenario(self.facts, salt)
        if plans:
            scenario = under_faults(scenario, self.facts, plans)
        with storing(result_dir, label, load.seed, self.facts) as (keep, store), predicting(store) as beside:
            carried = await self._carry_out(
                [scenario],
                sending,
                how,
                keep,
                workers=fleet,
                store=store,
                names=(load.name,),
                argv=argv,
                seed=load.seed,
                faults=plans,
                beside=beside,
            )
            settings = LoadSettings(
                len(scenario.phases[0].requests),
                load.concurrency,
                arrival=None if load.arrival is None else load.arrival.keys,
                label=label or None,
                goodput=goodput or {},
            )
            return reported(carried, store, settings)

    async def run_workloads(  # noqa: PLR0913 - all have defaults
        self,
        *names: str,
        seed: int = 0,
        background_load: int = 0,
        faults: Sequence[str] = (),
        workers: int | None = None,
        ray: str | None = None,
        result_dir: str | Path | None = None,
        label: str = "",
    ) -> Report:
        """Run workloads of the catalogue (default: all), verify all their answers, and judge.

        The report's ``rows`` have one entry for each workload; a workload that needs another deployment is skipped.

        Args:
            names: names, families or globs, as ``python -m harness list`` shows them.
            seed: seed of the prompts.
            background_load: requests kept in flight beside each workload.
            faults: as for :meth:`run`; each is struck once in each workload, in its largest phase.
            workers: as for :meth:`run`.
            ray: as for :meth:`run`.
            result_dir: as for :meth:`run`.
            label: as for :meth:`run`.

        Raises:
            UsageError: no workload has this name, a fault cannot be read, or there are no such workers.

        """
        fleet = _workers(workers, ray)
        entries = choose(names or ("*",))
        plans = faults_of_workloads({entry.name: entry.faults for entry in entries}, map(parse_fault, faults))
        salt = fresh_salt()
        fitting = fit(entries, self.facts, seed=seed, salt=salt, background=background_load)
        how = VerifyOptions(
            policy=VerifyPolicy.parse("all"), salt=f"{salt}-verification", seed=seed, probe_tiers=self.facts.launched
        )
        argv = tuple(word for name in names or ("*",) for word in ("--workload", name))
        argv += ("--seed", str(seed), *(["--background-load", str(background_load)] if background_load else []))
        argv += tuple(word for fault in faults for word in ("--fault", fault))
        argv += tuple(workers_words(fleet))
        sending = Sending(self._target.headers)
        with storing(result_dir, label, seed, self.facts) as (keep, store):
            begun = tuple(entry.name for entry in entries)
            verify = how if fitting.scenarios else None
            carried = await self._carry_out(
                joined(fitting.scenarios, self.facts, plans),
                sending,
                verify,
                keep,
                workers=fleet,
                store=store,
                names=begun,
                argv=argv,
                seed=seed,
                faults=plans,
            )
            left = {entry: skipped_row(entry, AS_GIVEN, why) for entry, why in fitting.skipped.items()}
            history, whole = carried.history, carried.judgement
            rows = rows_of(entries, AS_GIVEN, left=left, deployment=self.facts, history=history, whole=whole)
            return reported(carried, store, None, rows=rows)

    async def _carry_out(  # noqa: PLR0913 - private; callers name most
        self,
        scenarios: Sequence[Scenario],
        sending: Sending,
        verify: VerifyOptions | None,
        keep: Callable[[Entry], None],
        *,
        workers: Workers,
        store: RunStore | None,
        names: tuple[str, ...],
        argv: Sequence[str],
        seed: int,
        faults: Sequence[FaultPlan] = (),
        beside: Beside | None = None,
    ) -> Carried:
        record, clock = Recorder(keep), MonotonicClock()
        relays = control_of(self._relaying.control, self._relaying.urls, sending.headers)
        values = partial(values_now, self.facts, clock=clock, headers=self._target.headers)
        site = Site(self.facts, clock, self._processes, relays, values=values, headers=sending.headers)
        nemesis = Nemesis(faults, site, record, self._observer)
        words = (*target_words(self._target), *argv)
        record(run_started_now(words, seed=seed, names=names))
        async with open_fleet(workers, clock, None if store is None else store.logs) as fleet:
            if fleet is not None:
                await fleet.set_up(self.facts, sending)
            return await carry_out(
                scenarios,
                self.facts,
                sending=replace(sending, metrics_urls=self._relaying.metrics),
                verify=verify,
                record=record,
                clock=clock,
                observer=self._observer,
                died=self._died if fleet is None else lambda: (*self._died(), *fleet.died()),
                ended=self._processes.ended,
                load=nemesis.beside(load_here if fleet is None else fleet.load),
                beside=None if faults else beside,
            )


def _interval(seconds: float) -> float:
    if not 0 <= seconds < math.inf:
        raise UsageError(f"metrics_interval={seconds}: give the seconds between two readings, or 0 for none.")
    return seconds


def _workers(number: int | None, ray: str | None) -> Workers:
    if number is not None and number < 1:
        raise UsageError(f"workers={number}: give the number of processes that send the load, 1 or more.")
    workers = Workers(number, ray)
    workers.require()
    return workers
