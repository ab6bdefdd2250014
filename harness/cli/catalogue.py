"""``python -m harness list`` and ``run --workload``: the catalogue shown, and run on the deployments that it needs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.checkers import of_nobody, seconds_of
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import Options
from harness.cli.run import EXIT, judged
from harness.cli.verify_workloads import judged_workloads, verified
from harness.deploy.simulated_args import CannotSimulate
from harness.deploy.target import Target
from harness.errors import ExitCode, HarnessError
from harness.facts import Deployment, Role
from harness.history import History
from harness.reports import print_catalogue, print_report
from harness.reports.catalogue import Row, overall
from harness.reports.catalogue_junit import catalogue_junit
from harness.scenario import Scenario
from harness.store import RunStore, save_text
from harness.verdict import Check, Judgement, Outputs, Verdict
from workloads.background import beside_load
from workloads.catalogue import catalogue, choose
from workloads.needs import unmet
from workloads.recipes import RECIPES, Recipe
from workloads.registry import Workload
from workloads.setting import Setting

WHOLE_RUN = "(whole run)"
"""A row for what is wrong with a run and no workload's."""
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
    for recipe in RECIPES.values():
        print(f"  {recipe.name:<{width}}  {recipe.summary}")
    return ExitCode.VALID


async def run_catalogue(options: Options) -> ExitCode:
    """Run the chosen workloads, deployment by deployment, and end in one table."""
    chosen = choose(options.catalogue.patterns)
    rows: list[Row] = []
    for recipe, entries in _grouped(options, chosen):
        rows += await _on(recipe, entries, options)
    if options.report.junit:
        save_text(options.report.junit.resolve(), catalogue_junit(rows))
    print_catalogue(rows, plain=options.report.plain)
    return EXIT[overall(rows)]


def _grouped(options: Options, chosen: Sequence[Workload]) -> Iterator[tuple[Recipe | None, list[Workload]]]:
    """Each deployment with its workloads; without a recipe it is the one that the other flags describe."""
    if not options.catalogue.everywhere:
        yield RECIPES.get(options.catalogue.recipe or ""), list(chosen)
        return
    for recipe in RECIPES.values():
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


async def _on(recipe: Recipe | None, entries: list[Workload], options: Options) -> list[Row]:
    name = recipe.name if recipe else "as given"
    target = target_of(recipe, options)
    if target is None:
        return _none_of(entries, name, _ONE_VERSION if options.target.engine == "sim" else _ONE_ENGINE)
    plan = _Plan(entries, options)
    label = "-".join(filter(None, (options.report.label, recipe.name if recipe else "catalogue")))
    with RunStore.create(options.report.result_dir, label=label, seed=options.load.seed) as store:
        # The table is written as JUnit when all have run, one case for each workload: not each deployment's checks.
        here = replace(options, target=target, report=replace(options.report, junit=None))
        try:
            deployment, history = await measure(here, store, plan.choose, tuple(entry.name for entry in entries))
        except CannotSimulate as why:
            if not options.catalogue.everywhere:
                raise
            return _none_of(entries, name, str(why))
        except HarnessError as error:
            if not options.catalogue.everywhere:
                raise
            return [_failed(entry, name, error) for entry in entries]
        report = judged(here, store, deployment, history)
        rows = rows_of(plan.ran, deployment, history, report.judgement, name)
        rows += [row for entry, why in plan.skipped.items() for row in _none_of([entry], name, why)]
        store.save_result(report.result | {"workloads": [row_as_json(row) for row in rows]})
    if plan.ran:
        print_report(report, plain=options.report.plain)
    order = [*(entry.name for entry in entries), WHOLE_RUN]
    return sorted(rows, key=lambda row: order.index(row.workload))


def rows_of(
    ran: Sequence[Workload], deployment: Deployment, history: History, whole: Judgement, name: str
) -> list[Row]:
    """A line for each workload that ran, and one for what is wrong with the run and is nobody's."""
    judged = judged_workloads(ran, deployment, history, whole)
    rows = [_row(entry, history, judgement, name, deployment) for entry, judgement in judged]
    rest = of_nobody(whole, [row.judgement for row in rows if row.judgement]) if ran else None
    return rows if rest is None else [*rows, Row(WHOLE_RUN, "run", name, rest)]


def _row(entry: Workload, history: History, judgement: Judgement, name: str, deployment: Deployment) -> Row:
    asked = history.operations(scenario=entry.name)
    return Row(
        entry.name,
        entry.family,
        name,
        judgement,
        requests=sum(operation.request.reference_for is None for operation in asked),
        seconds=seconds_of(history, entry.name),
        known_fault=entry.known_fault,
        facts=deployment,
    )


def _none_of(entries: Iterable[Workload], name: str, why: str) -> list[Row]:
    return [Row(entry.name, entry.family, name, skipped=why) for entry in entries]


def _failed(entry: Workload, name: str, error: HarnessError) -> Row:
    check = Check("deployment", Verdict.UNKNOWN, str(error))
    return Row(entry.name, entry.family, name, Judgement((check,), Outputs(0, 0, 0, 0, 0)))


def row_as_json(row: Row) -> Mapping[str, object]:
    """The line as result.json has it."""
    return {
        "workload": row.workload,
        "family": row.family,
        "verdict": row.word,
        "requests": row.requests,
        "seconds": round(row.seconds, 3),
        "compared": row.compared,
        "reasons": list(row.reasons),
    }


def target_of(recipe: Recipe | None, options: Options) -> Target | None:
    """The deployment to launch or attach to; None where the recipe lacks another engine."""
    target = options.target if recipe is None else cook(recipe, options.target)
    if target is None or recipe is None or recipe.other_engine or not options.catalogue.everywhere:
        return target
    # Of all deployments only one is to have different engines on its two sides: the others have prefill's.
    return replace(target, engine_pythons=dict.fromkeys(Role, target.engine_pythons[Role.PREFILL]))


def cook(recipe: Recipe, target: Target) -> Target | None:
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
