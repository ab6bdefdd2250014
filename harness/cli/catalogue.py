"""``python -m harness list`` and ``run --workload``: the catalogue shown, and run on the deployments that it needs."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from harness.catalogue.background import beside_load
from harness.catalogue.choice import catalogue, choose
from harness.catalogue.needs import unmet
from harness.catalogue.presets import PRESETS, Preset
from harness.catalogue.registry import Workload
from harness.catalogue.setting import Setting
from harness.checkers import judge
from harness.cli.interrupted import end_interrupted
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import Options
from harness.cli.outcome import exit_code, settings_of, store_report
from harness.cli.rejudged import AS_GIVEN
from harness.cli.rows import failed_rows, rows_of, skipped_rows, unknown_row
from harness.cli.stored import stored_run
from harness.cli.verify_workloads import verified
from harness.deploy.simulated_args import CannotSimulate
from harness.deploy.target import Target
from harness.errors import CrashError, ExitCode, HarnessError
from harness.facts import Deployment, Role
from harness.history import History
from harness.reports import WHOLE_RUN, Row, make_report, overall, print_catalogue, print_report
from harness.reports.catalogue_junit import catalogue_junit
from harness.scenario import Scenario
from harness.store import RunStore, save_text
from harness.verdict import Check, Verdict

_ONE_ENGINE = "it needs different engines on the two sides: name them with --prefill-python and --decode-python"
_ONE_VERSION = "it needs two versions of an engine, and the simulated pair is of one"


async def show_list(options: Options) -> ExitCode:  # noqa: ARG001 - every command takes the options
    """A line for each workload, under its family."""
    entries = catalogue()
    width = max(len(entry.name) for entry in entries)
    for family in dict.fromkeys(entry.family for entry in entries):
        print(f"{family}")
        for entry in (entry for entry in entries if entry.family == family):
            home = "" if entry.home == "multi" else f" [{entry.home}]"
            print(f"  {entry.name:<{width}}  {entry.summary}{home}")
    print("\ndeployments")
    for recipe in PRESETS.values():
        print(f"  {recipe.name:<{width}}  {recipe.summary}")
    return ExitCode.VALID


async def run_catalogue(options: Options) -> ExitCode:
    """Run the chosen workloads, deployment by deployment, and end in one table."""
    chosen = choose(options.catalogue.patterns)
    rows: list[Row] = []
    crash: CrashError | None = None
    died = False
    groups = list(_grouped(options, chosen))
    for number, (recipe, entries) in enumerate(groups):
        done = await _on(recipe, entries, options)
        rows += done.rows
        crash = crash or done.crash
        died = died or done.died
        if done.interrupted:
            rows += [row for after, left in groups[number + 1 :] for row in _not_begun(_name(after), left)]
            break
    print_catalogue(rows, plain=options.report.plain)
    if options.report.junit:
        save_text(options.report.junit.resolve(), catalogue_junit(rows))
    if crash is not None:
        raise crash
    return exit_code(overall(rows), died=died)


def _not_begun(name: str, entries: Sequence[Workload]) -> list[Row]:
    why = Check("completion", Verdict.UNKNOWN, "the run was interrupted before this workload began")
    return [unknown_row(entry, name, why) for entry in entries]


def _name(recipe: Preset | None) -> str:
    return recipe.name if recipe else AS_GIVEN


def _grouped(options: Options, chosen: Sequence[Workload]) -> Iterator[tuple[Preset | None, list[Workload]]]:
    """Each deployment with its workloads; without a recipe it is the one that the other flags describe."""
    if not options.catalogue.everywhere:
        yield PRESETS.get(options.catalogue.recipe or ""), list(chosen)
        return
    for recipe in PRESETS.values():
        entries = [entry for entry in chosen if entry.home == recipe.name]
        if entries:
            yield recipe, entries


@dataclass(slots=True)
class _Plan:
    """What runs on a deployment and what does not, once its facts are known."""

    entries: Sequence[Workload]
    options: Options
    ran: list[Workload] = field(default_factory=list)
    skipped: dict[Workload, str] = field(default_factory=dict)

    def choose(self, deployment: Deployment, history: Callable[[], History]) -> Iterator[Scenario]:
        """The workloads one after another, and then the verification of all of them."""
        self.skipped = {entry: why for entry in self.entries if (why := unmet(entry.needs, deployment))}
        self.ran = [entry for entry in self.entries if entry not in self.skipped]
        if not self.ran:
            return
        setting = Setting.of(deployment, seed=self.options.load.seed, salt=fresh_salt())
        beside = self.options.catalogue.background
        scenarios = [entry(setting) for entry in self.ran]
        loads = [beside_load(scenario, setting, beside) if beside else scenario for scenario in scenarios]
        yield from verified(loads, deployment, history, self.options.load, salt=f"{setting.salt}-verification")


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of the workloads of one deployment."""

    rows: Sequence[Row]
    crash: CrashError | None = None
    """The harness's own, of which the other deployments are not to suffer."""
    interrupted: bool = False
    died: bool = False
    """Whether a process died that the harness had started there."""


async def _on(recipe: Preset | None, entries: list[Workload], options: Options) -> _Done:
    """Run them; where all deployments are to be tried, what fails on one is told in its rows."""
    name = _name(recipe)
    target = target_of(recipe, options)
    if target is None:
        return _Done(skipped_rows(entries, name, _ONE_VERSION if options.target.engine == "sim" else _ONE_ENGINE))
    # The table is written as JUnit when all have run, one case for each workload: not each deployment's.
    here = replace(options, target=target, report=replace(options.report, junit=None))
    label = "-".join(filter(None, (options.report.label, recipe.name if recipe else "catalogue")))
    try:
        with stored_run(here, label=label, seed=options.load.seed) as store:
            return await _stored(_Plan(entries, options), here, store, name)
    except CannotSimulate as why:
        if not options.catalogue.everywhere:
            raise
        return _Done(skipped_rows(entries, name, str(why)))
    except HarnessError as error:
        if not options.catalogue.everywhere:
            raise
        return _Done(failed_rows(entries, name, error), error if isinstance(error, CrashError) else None)


async def _stored(plan: _Plan, options: Options, store: RunStore, name: str) -> _Done:
    try:
        deployment, history = await measure(options, store, plan.choose, tuple(entry.name for entry in plan.entries))
    except asyncio.CancelledError:
        _, report = end_interrupted(store, options, table=False)
        return _Done(report.rows if report else _not_begun(name, plan.entries), interrupted=True)
    judgement = judge(deployment, history)
    rows = rows_of(plan.ran, deployment, history, judgement, name)
    rows += [row for entry, why in plan.skipped.items() for row in skipped_rows([entry], name, why)]
    order = [*(entry.name for entry in plan.entries), WHOLE_RUN]
    rows.sort(key=lambda row: order.index(row.workload))
    report = make_report(deployment, history, judgement, store.path, settings_of(options, history), rows=rows)
    store_report(report, options.report, store.path, table=False)
    if plan.ran:
        print_report(report, plain=options.report.plain)
    return _Done(rows, died=report.died)


def target_of(recipe: Preset | None, options: Options) -> Target | None:
    """The deployment to launch or attach to; None where the recipe lacks another engine."""
    target = options.target if recipe is None else cook(recipe, options.target)
    if target is None or recipe is None or recipe.other_engine or not options.catalogue.everywhere:
        return target
    # Of all deployments only one is to have different engines on its two sides: the others have prefill's.
    return replace(target, engine_pythons=dict.fromkeys(Role, target.engine_pythons[Role.PREFILL]))


def cook(recipe: Preset, target: Target) -> Target | None:
    """The target that a recipe describes, the user's own arguments last; None where it lacks another engine."""
    pythons = target.engine_pythons
    if recipe.other_engine and len(set(pythons.values())) == 1:
        return None
    ours = {Role.PREFILL: recipe.prefill_args, Role.DECODE: recipe.decode_args}
    return replace(
        target,
        connectors=recipe.connectors,
        prefill=recipe.prefill,
        decode=recipe.decode,
        nixl_config={**recipe.nixl_config, **target.nixl_config},
        num_gpu_blocks=recipe.num_gpu_blocks or target.num_gpu_blocks,
        engine_args=(*recipe.engine_args, *target.engine_args),
        role_args={role: (*ours[role], *target.role_args.get(role, ())) for role in Role},
    )
