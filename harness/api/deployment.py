"""A deployment that was launched or attached to, and runs on it. The classes exist with and without ``await``."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from harness.api.loop import LoopThread
from harness.api.words import load_words, target_words
from harness.beside import Beside
from harness.catalogue.choice import choose
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.deploy.target import Target
from harness.facts import Deployment
from harness.history import DeadProcess, Entry
from harness.load.extra_body import checked
from harness.loads import Load, RandomLoad
from harness.observer import RunObserver
from harness.reports import LoadSettings, Report, make_report
from harness.reports.rows import AS_GIVEN, rows_of, skipped_row
from harness.run import Carried, Recorder, Sending, carry_out, fit, fresh_salt, run_started_now, with_tokens
from harness.run.transport import REQUEST_TIMEOUT
from harness.scenario import Scenario
from harness.store import RunStore
from harness.verify.asking import VerifyOptions, VerifyPolicy
from harness.verify.asking.policy import DEFAULT


@dataclass(frozen=True, slots=True)
class AsyncRunningDeployment:
    """A deployment that is ready. :class:`RunningDeployment` has the same methods without ``await``."""

    facts: Deployment
    """The known facts of the deployment: servers, URLs, block sizes, connectors, model."""
    _target: Target
    _observer: RunObserver
    _died: Callable[[], tuple[DeadProcess, ...]]

    async def run(  # noqa: PLR0913 - all have defaults
        self,
        load: Load | None = None,
        *,
        verify: str = DEFAULT,
        probe_tiers: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        goodput: Mapping[str, float] | None = None,
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
            result_dir: store the run in a new directory inside this one, as the command line does; None: do not store.
            label: part of the new directory's name.

        Raises:
            UsageError: the load does not fit the deployment, or the dataset cannot be read.

        """
        load = await with_tokens(load or RandomLoad(), self.facts, self._target.headers)
        salt = fresh_salt()
        sending = Sending(self._target.headers, request_timeout, extra_body=checked(extra_body or {}))
        how = VerifyOptions(
            policy=VerifyPolicy.parse(verify),
            salt=salt,
            seed=load.seed,
            concurrency=load.concurrency,
            probe_tiers=self.facts.launched or probe_tiers,
        )
        argv = (*load_words(load), "--verify", verify, *(["--probe-tiers"] if probe_tiers else []))
        argv += tuple(["--goodput", *(f"{name}:{ms:.15g}" for name, ms in goodput.items())] if goodput else [])
        scenario = load.scenario(self.facts, salt)
        with _storing(result_dir, label, load.seed, self.facts) as (keep, store), _predicting(store) as beside:
            carried = await self._carry_out(
                [scenario], sending, how, keep, names=(load.name,), argv=argv, seed=load.seed, beside=beside
            )
            settings = LoadSettings(
                len(scenario.phases[0].requests),
                load.concurrency,
                arrival=None if load.arrival is None else load.arrival.keys,
                label=label or None,
                goodput=goodput or {},
            )
            return _reported(carried, store, settings)

    async def run_workloads(
        self,
        *names: str,
        seed: int = 0,
        background_load: int = 0,
        result_dir: str | Path | None = None,
        label: str = "",
    ) -> Report:
        """Run workloads of the catalogue (default: all), verify all their answers, and judge.

        The report's ``rows`` have one entry for each workload; a workload that needs another deployment is skipped.

        Args:
            names: names, families or globs, as ``python -m harness list`` shows them.
            seed: seed of the prompts.
            background_load: requests kept in flight beside each workload.
            result_dir: as for :meth:`run`.
            label: as for :meth:`run`.

        Raises:
            UsageError: no workload has this name.

        """
        entries = choose(names or ("*",))
        salt = fresh_salt()
        fitting = fit(entries, self.facts, seed=seed, salt=salt, background=background_load)
        how = VerifyOptions(
            policy=VerifyPolicy.parse("all"), salt=f"{salt}-verification", seed=seed, probe_tiers=self.facts.launched
        )
        argv = tuple(word for name in names or ("*",) for word in ("--workload", name))
        argv += ("--seed", str(seed), *(["--background-load", str(background_load)] if background_load else []))
        sending = Sending(self._target.headers)
        with _storing(result_dir, label, seed, self.facts) as (keep, store):
            begun = tuple(entry.name for entry in entries)
            verify = how if fitting.scenarios else None
            carried = await self._carry_out(fitting.scenarios, sending, verify, keep, names=begun, argv=argv, seed=seed)
            left = {entry: skipped_row(entry, AS_GIVEN, why) for entry, why in fitting.skipped.items()}
            history, whole = carried.history, carried.judgement
            rows = rows_of(entries, AS_GIVEN, left=left, deployment=self.facts, history=history, whole=whole)
            return _reported(carried, store, None, rows=rows)

    async def _carry_out(  # noqa: PLR0913 - private; callers name most
        self,
        scenarios: Sequence[Scenario],
        sending: Sending,
        verify: VerifyOptions | None,
        keep: Callable[[Entry], None],
        *,
        names: tuple[str, ...],
        argv: Sequence[str],
        seed: int,
        beside: Beside | None = None,
    ) -> Carried:
        record = Recorder(keep)
        words = (*target_words(self._target), *argv)
        record(run_started_now(words, seed=seed, names=names))
        return await carry_out(
            scenarios,
            self.facts,
            sending=sending,
            verify=verify,
            record=record,
            clock=MonotonicClock(),
            observer=self._observer,
            died=self._died,
            beside=beside,
        )


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
    """A deployment that is ready, opened by ``launch``, ``attach`` or ``simulate``. ``close`` ends it."""

    def __init__(self, loop: LoopThread, deployment: AsyncRunningDeployment, stack: ExitStack) -> None:
        self._loop, self._deployment, self._stack = loop, deployment, stack
        self.facts = deployment.facts
        """The known facts of the deployment: servers, URLs, block sizes, connectors, model."""

    run = _awaiting(AsyncRunningDeployment.run)
    run_workloads = _awaiting(AsyncRunningDeployment.run_workloads)

    def close(self) -> None:
        """End everything that was launched. A second call does nothing."""
        self._stack.close()


class Opening:
    """A deployment that is not open yet: use it in ``with`` or ``async with``, or call ``open``."""

    def __init__(self, target: Target, *, log_dir: str | Path | None, observer: RunObserver) -> None:
        self._target, self._log_dir, self._observer = target, log_dir, observer
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
            yield AsyncRunningDeployment(session.deployment, self._target, self._observer, session.died)
            died = session.died()
        # After a failure the directory is kept, since messages name a log in it.
        if self._log_dir is None and not died:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _storing(
    result_dir: str | Path | None, label: str, seed: int, facts: Deployment
) -> Iterator[tuple[Callable[[Entry], None], RunStore | None]]:
    """A function that stores a run's entries, and the run's directory; without ``result_dir`` nothing is stored."""
    if result_dir is None:
        yield lambda _entry: None, None
        return
    with RunStore.create(result_dir, label=label, seed=seed) as store:
        store.save_deployment(facts)
        yield store.record, store


def _predicting(store: RunStore | None) -> AbstractContextManager[Beside | None]:
    """A second process for a large load, which reads the stored journal; none if nothing is stored."""
    return nullcontext() if store is None else Beside(store.journal, store.logs / "beside.log")


def _reported(carried: Carried, store: RunStore | None, settings: LoadSettings | None, **more: Any) -> Report:
    path = None if store is None else store.path
    report = make_report(carried.deployment, carried.history, carried.judgement, path, settings, **more)
    if store is not None:
        store.save_result(report.result)
    return report
