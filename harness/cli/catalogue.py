"""``python -m harness list`` shows the catalogue, and ``run --workload`` runs workloads on their deployments."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.catalogue.choice import catalogue, choose, ready_pairs
from harness.catalogue.launching import build_target
from harness.catalogue.presets import PRESETS, Preset
from harness.catalogue.registry import Workload
from harness.cli.ending import end_interrupted, store_report
from harness.cli.fault_list import OF_ALL, fault_lines
from harness.cli.fault_options import reach_of
from harness.cli.measure import measuring
from harness.cli.options import Options
from harness.cli.output import print_command
from harness.cli.page import write_page
from harness.cli.rejudged import settings_of
from harness.cli.report_files import publish
from harness.cli.stored import stored_run
from harness.deploy.simulated_args import CannotSimulate
from harness.deploy.target import Target
from harness.errors import CrashError, ExitCode, HarnessError
from harness.facts import Role
from harness.faults import faults_of_workloads, joined
from harness.reports import Row, exit_code, make_report, overall, print_catalogue, print_report
from harness.reports.ci import announce_rows
from harness.reports.files.catalogue_junit import catalogues_junit
from harness.reports.identity import RunIdentity
from harness.reports.rows import AS_GIVEN, rows_of, skipped_row, unknown_row
from harness.run import fit, fresh_salt
from harness.store import RunStore, save_text
from harness.verdict import Check, Verdict

_ONE_ENGINE = "it needs different engines on the two sides: name them with --prefill-python and --decode-python"
_ONE_VERSION = "it needs two versions of an engine, and the simulated pair has only one"


async def show_list(options: Options) -> ExitCode:  # noqa: ARG001 - all commands have the same parameter
    """Print a line for each workload, under its family, for each ready pair, for each preset, and for each fault."""
    entries, pairs = catalogue(), ready_pairs()
    width = max(len(entry.name) for entry in (*entries, *pairs))
    for family in dict.fromkeys(entry.family for entry in entries):
        print(f"{family}")
        for entry in (entry for entry in entries if entry.family == family):
            print(_line(entry, width))
    for family in dict.fromkeys(entry.family for entry in pairs):
        print(f"\n{family}: workloads with faults, named by --workload like the others; --workload {family} runs all")
        for entry in (entry for entry in pairs if entry.family == family):
            print(_line(entry, width))
            print(f"  {'':<{width}}  --fault {' --fault '.join(entry.faults)}")
    print("\ndeployments")
    for preset in PRESETS.values():
        print(f"  {preset.name:<{width}}  {preset.summary}")
    print(f"\nfaults (--fault NAME:OPTION=VALUE,...); most have the options {OF_ALL}, too")
    for line in fault_lines(width):
        print(line)
    return ExitCode.VALID


def _line(entry: Workload, width: int) -> str:
    home = "" if entry.home == "multi" else f" [{entry.home}]"
    return f"  {entry.name:<{width}}  {entry.summary}{home}"


async def run_catalogue(options: Options) -> ExitCode:
    """Run the chosen workloads, one deployment after another, and show one table at the end."""
    chosen = choose(options.catalogue.patterns)
    done: list[_Done] = []
    groups = list(_grouped(options, chosen))
    for number, (preset, entries) in enumerate(groups):
        done.append(await _on(preset, entries, options))
        if done[-1].interrupted:
            done += [_Done(_not_begun(_name(after), left)) for after, left in groups[number + 1 :]]
            break
    rows = [row for one in done for row in one.rows]
    print_catalogue(rows, plain=options.report.plain)
    if options.report.junit:
        save_text(options.report.junit.resolve(), catalogues_junit((one.rows, one.identity) for one in done))
    for one in done:
        if one.identity is None and options.report.files.announced:
            announce_rows(one.rows, os.environ, print_command)
    if crash := next((one.crash for one in done if one.crash), None):
        raise crash
    return exit_code(overall(rows), died=any(one.died for one in done))


def _not_begun(name: str, entries: Sequence[Workload]) -> list[Row]:
    why = Check("completion", Verdict.UNKNOWN, "the run was interrupted before this workload began")
    return [unknown_row(entry, name, why) for entry in entries]


def _name(preset: Preset | None) -> str:
    return preset.name if preset else AS_GIVEN


def _grouped(options: Options, chosen: Sequence[Workload]) -> Iterator[tuple[Preset | None, list[Workload]]]:
    """Each preset with its workloads. None stands for the deployment that the other flags describe."""
    if not options.catalogue.everywhere:
        yield PRESETS.get(options.catalogue.preset or ""), list(chosen)
        return
    for preset in PRESETS.values():
        entries = [entry for entry in chosen if entry.home == preset.name]
        if together := [entry for entry in entries if not entry.alone]:
            yield preset, together
        for entry in entries:
            if entry.alone:
                yield preset, [entry]


@dataclass(frozen=True, slots=True)
class _Done:
    """The result of the workloads on one deployment."""

    rows: Sequence[Row]
    identity: RunIdentity | None = None
    """None: no run began."""
    crash: CrashError | None = None
    """A failure of the harness itself. The workloads on other deployments are still run."""
    interrupted: bool = False
    died: bool = False
    """Whether a process of the deployment that the harness had started died."""


async def _on(preset: Preset | None, entries: list[Workload], options: Options) -> _Done:
    """Run workloads on one deployment. With ``--all-deployments``, a failure becomes unknown rows."""
    name = _name(preset)
    target = target_of(preset, options)
    if target is None:
        why = _ONE_VERSION if options.target.engine == "sim" else _ONE_ENGINE
        return _Done([skipped_row(entry, name, why) for entry in entries])
    # The JUnit file has the workloads of all deployments: it is written at the end.
    plans = faults_of_workloads({entry.name: entry.faults for entry in entries}, options.faults)
    reach_of(target).require(plans)
    target = replace(target, separate_processes=target.separate_processes or bool(plans))
    here = replace(options, target=target, faults=plans, report=replace(options.report, junit=None))
    label = "-".join(filter(None, (options.report.label, preset.name if preset else "catalogue")))
    try:
        with stored_run(here, label=label, seed=options.load.seed) as store:
            return await _stored(entries, here, store, name)
    except HarnessError as error:
        if not options.catalogue.everywhere:
            raise
        if isinstance(error, CannotSimulate):
            return _Done([skipped_row(entry, name, str(error)) for entry in entries])
        failed = Check("deployment", Verdict.UNKNOWN, str(error))
        rows = [unknown_row(entry, name, failed) for entry in entries]
        return _Done(rows, crash=error if isinstance(error, CrashError) else None)


async def _stored(entries: Sequence[Workload], options: Options, store: RunStore, name: str) -> _Done:
    try:
        async with measuring(options, store, tuple(entry.name for entry in entries)) as on:
            seed, salt = options.load.seed, fresh_salt()
            fitting = fit(entries, on.deployment, seed=seed, salt=salt, background=options.catalogue.background)
            verify = options.verify(on.deployment, f"{salt}-verification", everything=True)
            scenarios = joined(fitting.scenarios, on.deployment, options.faults)
            carried = await on.carry_out(scenarios, verify=verify if scenarios else None)
    except asyncio.CancelledError:
        interrupted = end_interrupted(store, options, table=False)
        rows = interrupted.rows if interrupted else _not_begun(name, entries)
        return _Done(rows, interrupted.identity if interrupted else None, interrupted=True)
    deployment, history, judgement = carried.deployment, carried.history, carried.judgement
    left = {entry: skipped_row(entry, name, why) for entry, why in fitting.skipped.items()}
    rows = rows_of(entries, name, left=left, deployment=deployment, history=history, whole=judgement)
    settings = settings_of(options, history)
    report = make_report(deployment, history, judgement, store.path, settings, rows=rows)
    store_report(report, options.report, store.path, table=False)
    if fitting.scenarios:
        print_report(report, plain=options.report.plain)
    publish(report, options.report)
    write_page(report, options.report, store.path)
    return _Done(rows, report.identity, died=bool(history.died))


def target_of(preset: Preset | None, options: Options) -> Target | None:
    """The deployment to launch or attach to; None if the preset needs a second engine and no flag names one."""
    target = options.target if preset is None else build_target(preset, options.target)
    if target is None or preset is None or preset.other_engine or not options.catalogue.everywhere:
        return target
    # Both sides have prefill's engine, except in the one preset with different engines.
    return replace(target, engine_pythons=dict.fromkeys(Role, target.engine_pythons[Role.PREFILL]))
