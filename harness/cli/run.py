"""``python -m harness [run]``: deployment, load, judgement, report."""

from collections.abc import Callable, Iterable
from functools import partial

from harness.checkers import judge
from harness.checkers.outputs import control_outputs, count_outputs, doubted_probes, owned_outputs, suspects
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import LoadOptions, Options
from harness.errors import ExitCode, UsageError
from harness.facts import Connector, Deployment, Role
from harness.history import Entry, History
from harness.reports import LoadSettings, Report, make_report, print_report
from harness.scenario import Route, Scenario
from harness.store import RunStore
from harness.store.noise_file import noise_key, read_noise, write_noise
from harness.verdict import Verdict
from workloads.random_load import random_load
from workloads.verification import Judges, Verification, follow_ups, followed
from workloads.verify_policy import VerifyPolicy

JUDGES = Judges(suspects, owned_outputs, doubted_probes)
EXIT = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


async def run(options: Options) -> ExitCode:
    """One run, from nothing to its verdict."""
    with RunStore.create(options.report.result_dir, label=options.report.label or "", seed=options.load.seed) as store:
        salt = fresh_salt()

        def choose(deployment: Deployment, history: Callable[[], History]) -> Iterable[Scenario]:
            return verified(options.load, deployment, history, salt=salt)

        deployment, history = await measure(options, store, choose, ("random_load",), partial(_known, options.load))
        _keep_noise(options.load, deployment, history)
        report = judged(options, store, deployment, history)
    print_report(report, plain=options.report.plain)
    return EXIT[report.judgement.verdict]


def _known(load: LoadOptions, deployment: Deployment, now: float) -> Iterable[Entry]:
    if load.noise_floor is not None and load.noise_floor.exists():
        yield read_noise(load.noise_floor, noise_key(deployment, load.concurrency), now)


def _keep_noise(load: LoadOptions, deployment: Deployment, history: History) -> None:
    """A control arm that carries a floor is kept; one that does not would make every later run unknown."""
    if load.noise_floor is not None and not load.noise_floor.exists() and count_outputs(history).noise_floor:
        write_noise(load.noise_floor, noise_key(deployment, load.concurrency), control_outputs(history))


def verified(
    load: LoadOptions, deployment: Deployment, history: Callable[[], History], *, salt: str
) -> Iterable[Scenario]:
    """The load, the probe of the caches that it filled, and the verification of both."""
    scenario = _scenario(load, deployment, salt=salt)
    limits = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
    verification = Verification(
        policy=VerifyPolicy.parse(load.verify),
        scenario=scenario.name,
        concurrency=load.concurrency,
        salt=salt,
        seed=load.seed,
        forcing_route=Route.REFERENCE if load.reference_url else Route.PREFILL,
        max_model_len=min(limits, default=None),
        block_size=max(_block_sizes(deployment)),
        tiers=_tiers(deployment),
    )

    return followed(scenario, history, follow_ups(verification, JUDGES))


def _tiers(deployment: Deployment) -> dict[Route, int]:
    if Connector.OFFLOADING not in (deployment.connectors or ()):
        return {}
    roles = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}
    return {route: count for route, role in roles.items() if (count := len(deployment.of(role)))}


def _block_sizes(deployment: Deployment) -> list[int]:
    return [server.block_size for server in deployment.servers if server.block_size is not None]


def _scenario(load: LoadOptions, deployment: Deployment, *, salt: str) -> Scenario:
    if deployment.vocab_size is None:
        raise UsageError(
            f"The configuration of the model that the servers name, {deployment.model_path}, cannot be read here, so "
            "neither prompts nor bytes can be told. Give --model: a directory with the model's config.json, or a hub "
            "name in the local cache."
        )
    return random_load(
        seed=load.seed,
        num_prompts=load.num_prompts,
        concurrency=load.concurrency,
        vocab_size=deployment.vocab_size,
        special_token_ids=deployment.special_token_ids,
        block_size=min(_block_sizes(deployment)),
        input_len=load.input_len,
        output_len=load.output_len,
        ignore_eos=load.ignore_eos,
        salt=salt,
        reference=False,
    )


def judged(options: Options, store: RunStore, deployment: Deployment, history: History) -> Report:
    """The run judged, and its reports stored."""
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
