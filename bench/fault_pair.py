"""Launches a pair for cases of ``python -m bench.faults``, and runs them on it, one after another."""

import argparse
from collections.abc import Callable
from dataclasses import replace

import harness
from bench.fault_cases import Case, Pair
from bench.fault_row import Row, row
from harness.api.opening import Opening
from harness.catalogue.launching import build_target
from harness.catalogue.registry import CATALOGUE
from harness.deploy.target import Target
from harness.errors import DeployError, HarnessError, UsageError
from harness.faults import Processes
from harness.history import Outcome
from harness.observer import SILENT
from harness.reports import Report
from harness.verdict import Verdict

_READY_TRIES = 5
"""Small loads after a restart, at most: the first handshake may take too long, and its request fails then."""


async def run_on_pair(
    pair: Pair, left: list[tuple[str, Case]], options: argparse.Namespace, add: Callable[[Row], None]
) -> list[str]:
    """Run the cases that are left, taking each from ``left``, as far as the pair goes; returns why one did not run.

    What a case left behind that could not be run is not known, so that the next one needs another pair. Raises
    HarnessError if the pair cannot be launched.
    """
    async with Opening(_target(pair, options), log_dir=options.out / "servers", observer=SILENT) as deployment:
        while left:
            group, case = left.pop(0)
            try:
                report, tries = await _tried(deployment, case, options)
            except HarnessError as error:
                return [f"{case.text}: {error}"]
            known = bool(report.rows) and all(one.excused for one in report.rows)
            add(
                replace(row(group, case, report.deployment, report.history, report.judgement, known=known), tries=tries)
            )
            if left and not await _serves_again(deployment, case):
                break
    return []


def _target(pair: Pair, options: argparse.Namespace) -> Target:
    target = Target(engine=options.engine, separate_processes=options.engine == "sim", relays=pair.relays)
    built = build_target(pair.preset, replace(target, kv_load_failure_policy=pair.policy))
    if built is None:
        raise UsageError(f"The deployment {pair.preset.name} needs two engines.")
    return built


async def _tried(
    deployment: harness.AsyncRunningDeployment, case: Case, options: argparse.Namespace
) -> tuple[Report, int]:
    """The report of the case, which is run again while its verdict is unknown; and how often it was run."""
    tries = 1
    report = await _run(deployment, case, options, 0)
    while report.verdict is Verdict.UNKNOWN and tries < case.tries:
        report = await _run(deployment, case, options, tries)
        tries += 1
    return report, tries


async def _run(
    deployment: harness.AsyncRunningDeployment, case: Case, options: argparse.Namespace, number: int
) -> Report:
    seed = options.seed + number
    if case.workload:
        return await deployment.run_workloads(case.workload, seed=seed, result_dir=options.out, label=case.workload)
    load = harness.RandomLoad(num_prompts=options.requests, concurrency=options.concurrency, seed=seed)
    label = case.faults[0].partition(":")[0] if case.faults else "load"
    verify = case.verify or options.verify
    return await deployment.run(load, faults=case.faults, verify=verify, result_dir=options.out, label=label)


async def _serves_again(deployment: harness.AsyncRunningDeployment, case: Case) -> bool:
    """Start the processes again that the case ended; False if the pair serves nothing then: the others need another."""
    processes = deployment.processes
    ended = [] if processes is None else [name for name in processes.names() if _has_ended(processes, name, case)]
    if processes is None or not ended:
        return True
    try:
        for name in ended:
            # That it ended belongs to the case before, which said so.
            processes.will_end(name)
            await processes.restart(name)
    except DeployError:
        return False
    for _ in range(_READY_TRIES):
        report = await deployment.run(harness.RandomLoad(num_prompts=4, concurrency=4), verify="sample:0")
        if all(one.outcome is Outcome.OK for one in report.history.operations() if one.request.of_load):
            return True
    return False


def _has_ended(processes: Processes, name: str, case: Case) -> bool:
    """Whether a process has ended, or may have lost its engine and be of no use."""
    return not processes.pids(name) or (name == "decode-0" and bool(case.workload) and CATALOGUE[case.workload].alone)
