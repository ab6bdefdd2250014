"""The load that the command line names, and what is asked after it to verify its answers."""

from collections.abc import Callable, Iterable, Sequence

from harness.checkers.outputs import wrong_outputs
from harness.cli.options import DatasetOptions, LoadOptions
from harness.errors import UsageError
from harness.facts import Deployment
from harness.history import History
from harness.scenario import Route, Scenario
from workloads.dataset import Line, dataset_load, read_lines
from workloads.probe import cache_probe
from workloads.random_load import random_load
from workloads.verification import Step, Verification, follow_ups, followed
from workloads.verify_policy import VerifyPolicy

PROBES = 64
"""Prefixes asked again through each server's cache. Each is a prefill of what is cached already and four tokens."""


def read_dataset(dataset: DatasetOptions) -> tuple[Line, ...]:
    """The file's requests. Raises UsageError."""
    try:
        text = dataset.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--dataset-path {dataset.path} cannot be read: {why}. Name a JSONL file.") from None
    return read_lines(text, str(dataset.path), output_len=dataset.output_len)[: dataset.most]


def load_scenario(load: LoadOptions, deployment: Deployment, lines: Sequence[Line], *, salt: str) -> Scenario:
    """The dataset's ``lines`` where there are any, else random prompts."""
    if lines:
        return dataset_load(lines, concurrency=load.concurrency, salt=salt)
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


def verified(
    scenario: Scenario, load: LoadOptions, deployment: Deployment, history: Callable[[], History], *, salt: str
) -> Iterable[Scenario]:
    """The load, the probe of the caches that it filled, and the verification of both."""
    verification = verification_of(scenario, load, deployment, salt=salt)
    steps = [probing(scenario, load, deployment), *follow_ups(verification, wrong_outputs)]
    return followed(scenario, history, steps)


def verification_of(scenario: Scenario, load: LoadOptions, deployment: Deployment, *, salt: str) -> Verification:
    """As the command line wants it."""
    limits = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
    return Verification(
        policy=VerifyPolicy.parse(load.verify),
        scenario=scenario.name,
        concurrency=load.concurrency,
        salt=salt,
        seed=load.seed,
        forcing_route=Route.REFERENCE if load.reference_url else Route.PREFILL,
        max_model_len=min(limits, default=None),
    )


def probing(scenario: Scenario, load: LoadOptions, deployment: Deployment) -> Step:
    """The probe of the caches that the scenario filled."""

    def probe(so_far: History) -> Scenario | None:
        return cache_probe(
            so_far,
            scenario=scenario.name,
            block_size=max(_block_sizes(deployment)),
            concurrency=load.concurrency,
            seed=load.seed,
            most=PROBES,
        )

    return probe


def _block_sizes(deployment: Deployment) -> list[int]:
    return [server.block_size for server in deployment.servers if server.block_size is not None]
