"""``python -m harness [run]``: deployment, load, judgement, report."""

import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import aiohttp

from harness.checkers import judge
from harness.cli.options import LoadOptions, Options
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.errors import ExitCode, UsageError
from harness.facts import Deployment, Role
from harness.history import Ended, Entry, History, Noted, Outcome, PhaseStarted, RunEnded, RunStarted
from harness.load.client import Client
from harness.load.health import LoopLag
from harness.observe.observer import DeploymentObserver
from harness.reports import LoadSettings, Progress, Report, make_progress, make_report, print_report
from harness.runner import run_scenario
from harness.scenario import Phase, Route, Scenario
from harness.store import RunStore
from harness.verdict import Verdict
from workloads.random_load import random_load

_EXIT = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


class _Recorder:
    """Keeps the history in memory and on disk, so that a killed run can still be judged."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._entries: list[Entry] = []
        self._failed = 0

    def __call__(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._store.record(entry)
        if isinstance(entry, PhaseStarted):
            self._failed = 0
        elif isinstance(entry, Ended):
            self._failed += entry.outcome is not Outcome.OK

    @property
    def failed(self) -> int:
        """Operations of the present phase that did not end OK."""
        return self._failed

    @property
    def history(self) -> History:
        return History(tuple(self._entries))


async def run(options: Options) -> ExitCode:
    """One run, from nothing to its verdict."""
    clock = MonotonicClock()
    seed = options.load.seed
    with RunStore.create(options.report.result_dir, label=options.report.label or "", seed=seed) as store:
        record = _Recorder(store)
        record(_run_started(options))
        with make_progress(plain=options.report.plain, clock=clock) as progress:
            deployment = await _measure(options, store, record, clock, progress)
        report = _judged(options, store, deployment, record.history)
    print_report(report, plain=options.report.plain)
    return _EXIT[report.judgement.verdict]


async def _measure(
    options: Options, store: RunStore, record: _Recorder, clock: MonotonicClock, progress: Progress
) -> Deployment:
    around = Surroundings(store.path, clock, progress.deploy)
    async with open_session(options.target, around) as session:
        store.save_deployment(session.deployment)
        record(Noted(clock.now(), f"ready after {clock.now():.1f} s"))
        interrupted = True
        try:
            await _load(options, session, record, clock, progress)
            interrupted = False
        finally:
            for name, why in session.nursery.dead().items():
                record(Noted(clock.now(), f"{name} died: {why}"))
            record(RunEnded(clock.now(), interrupted=interrupted))
    return session.deployment


async def _load(
    options: Options, session: Session, record: _Recorder, clock: MonotonicClock, progress: Progress
) -> None:
    deployment, headers = session.deployment, dict(options.target.headers)
    scenario = _scenario(options.load, deployment, salt=f"run-{time.time_ns():x}")
    client = Client(
        _routes(deployment),
        model=deployment.model,
        clock=clock,
        timeout=options.load.request_timeout,
        headers=headers,
        extra_body=options.load.extra_body,
    )
    async with client, aiohttp.ClientSession(headers=headers) as scraping, LoopLag(clock) as lag:
        await run_scenario(
            scenario,
            send=client.send,
            observe=DeploymentObserver(
                deployment.servers, scraping, clock, record, deadline=options.load.settle_timeout
            ),
            record=record,
            clock=clock,
            on_progress=_shown(progress, scenario, record),
        )
        record(lag.health(operation.sent for operation in record.history.operations()))


def _scenario(load: LoadOptions, deployment: Deployment, *, salt: str) -> Scenario:
    if deployment.vocab_size is None:
        raise UsageError(
            f"The configuration of the model that the servers name, {deployment.model_path}, cannot be read here, so "
            "neither prompts nor bytes can be told. Give --model: a directory with the model's config.json, or a hub "
            "name in the local cache."
        )
    sizes = [server.block_size for server in deployment.servers if server.block_size is not None]
    return random_load(
        seed=load.seed,
        num_prompts=load.num_prompts,
        concurrency=load.concurrency,
        vocab_size=deployment.vocab_size,
        special_token_ids=deployment.special_token_ids,
        block_size=min(sizes),
        input_len=load.input_len,
        output_len=load.output_len,
        ignore_eos=load.ignore_eos,
        salt=salt,
    )


def _routes(deployment: Deployment) -> dict[Route, list[str]]:
    decode = [server.url for server in deployment.of(Role.DECODE)]
    return {
        # Where no connector transfers there is no proxy: the decode servers alone are under test.
        Route.PROXY: decode if deployment.proxy_url is None else [deployment.proxy_url],
        Route.PREFILL: [server.url for server in deployment.of(Role.PREFILL)],
        Route.DECODE: decode,
    }


def _shown(progress: Progress, scenario: Scenario, record: _Recorder) -> Callable[[int, int, Phase], None]:
    def on_progress(ended: int, total: int, phase: Phase) -> None:
        if ended == 0:
            progress.phase(scenario.name, phase.name, total)
        progress.advance(ended, total, record.failed)

    return on_progress


def _run_started(options: Options) -> RunStarted:
    return RunStarted(
        wall=time.time(),
        argv=options.argv,
        seed=options.load.seed,
        harness_version=version("pd-harness"),
        commit=_commit(),
        scenarios=("random_load",),
    )


def _commit() -> str | None:
    """The harness's own commit, where it runs from a checkout."""
    here = Path(__file__).parent
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False, timeout=10
    )
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def _judged(options: Options, store: RunStore, deployment: Deployment, history: History) -> Report:
    report = make_report(deployment, history, judge(deployment, history), store.path, _settings(options))
    store.save_result(report.result)
    if options.report.result_filename:
        store.save_result(report.result, str((options.report.result_dir / options.report.result_filename).resolve()))
    if options.report.junit:
        store.save_text(str(options.report.junit.resolve()), report.junit)
    return report


def _settings(options: Options) -> LoadSettings:
    return LoadSettings(
        num_prompts=options.load.num_prompts,
        max_concurrency=options.load.concurrency,
        label=options.report.label,
        metadata=options.report.metadata,
        detailed=options.report.save_detailed,
    )
