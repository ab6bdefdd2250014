"""The load that the command line names, and what is asked after it to verify its answers."""

from collections.abc import Callable, Iterable, Sequence

from harness.checkers.outputs import doubted_probes, owned_outputs, suspects
from harness.cli.options import DatasetOptions, LoadOptions
from harness.errors import UsageError
from harness.facts import Connector, Deployment, Role
from harness.history import History
from harness.scenario import Route, Scenario
from workloads.dataset import Line, dataset_load, read_lines
from workloads.random_load import random_load
from workloads.verification import Judges, Verification, follow_ups, followed
from workloads.verify_policy import VerifyPolicy

JUDGES = Judges(suspects, owned_outputs, doubted_probes)


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
            f"The configuration of the model that the servers name, {deployment.model_path}, cannot be read here, and "
            "they do not tokenize (POST /tokenize), so no random prompts can be made for it. Give --model: a directory "
            "with the model's config.json, or a hub name in the local cache; or a load of your own with --dataset-path."
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


def verified(  # noqa: PLR0913 - what is verified, on what, and how; the rest is keyword-only
    scenario: Scenario,
    load: LoadOptions,
    deployment: Deployment,
    history: Callable[[], History],
    *,
    salt: str,
    judges: Judges = JUDGES,
    tiers: bool = True,
) -> Iterable[Scenario]:
    """The load, the probe of the caches that it filled, and the verification of both.

    ``tiers``: whether offload tiers are probed, for which the prefix caches are emptied.
    """
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
        tiers=_tiers(deployment) if tiers else {},
    )
    return followed(scenario, history, follow_ups(verification, judges))


def _tiers(deployment: Deployment) -> dict[Route, int]:
    roles = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}
    return {
        route: len(deployment.of(role)) for route, role in roles.items() if deployment.has(Connector.OFFLOADING, role)
    }


def _block_sizes(deployment: Deployment) -> list[int]:
    """Of the servers that tell it; where none does, vLLM's usual one.

    A prompt's number fits into any block; a probe of another length than whole blocks counts for what it finds.
    """
    return [server.block_size for server in deployment.servers if server.block_size is not None] or [16]
