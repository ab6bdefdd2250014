"""The load that the command line names, and what is asked after it to verify its answers."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from harness.cli.options import DatasetOptions, LoadOptions
from harness.errors import UsageError
from harness.facts import Connector, Deployment, Role, Server
from harness.history import History
from harness.loads.dataset import Line, dataset_load, read_lines
from harness.loads.random_load import random_load
from harness.preflight import Demand
from harness.scenario import Route, Scenario
from harness.verify.asking.plan import Judges, Verification, follow_ups, followed
from harness.verify.asking.policy import VerifyPolicy
from harness.verify.asking.probe import Places
from harness.verify.asking.salt_test import salt_test
from harness.verify.judging import doubted_probes, owned_outputs, suspects

JUDGES = Judges(suspects, owned_outputs, doubted_probes)


def read_dataset(dataset: DatasetOptions) -> tuple[Line, ...]:
    """The file's requests. Raises UsageError."""
    try:
        text = dataset.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--dataset-path {dataset.path} cannot be read: {why}. Name a JSONL file.") from None
    return read_lines(text, str(dataset.path), output_len=dataset.output_len)[: dataset.most]


def demands(load: LoadOptions, lines: Sequence[Line]) -> tuple[Demand, ...]:
    """What the load asks of the servers' context and vocabulary, as far as it is known before they are."""
    if load.dataset is None:
        longest, output = load.input_len[1], load.output_len
        source = f"the load (--random-input-len up to {longest}, --random-output-len {output})"
        return (Demand(source, longest, output),)
    return tuple(_demand(line, f"{load.dataset.path}, line {line.number}") for line in lines)


def _demand(line: Line, source: str) -> Demand:
    tokens = [token for token in line.request.prompt if isinstance(token, int)]
    return Demand(source, len(tokens) or None, line.request.sampling.max_tokens, max(tokens, default=None))


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
    """A test of cache salts, the load, the probe of the caches that it filled, and the verification of both.

    ``tiers``: whether offload tiers are probed, where that is allowed: the prefix caches are emptied for it.
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
        tiers=_tiers(deployment) if tiers and (deployment.launched or load.probe_tiers) else {},
        places=Places(deployment.servers),
    )
    tested = salt_test(deployment, history, scenario=scenario.name, salt=salt, reference=load.reference_url is not None)
    return chain(tested, followed(scenario, history, follow_ups(verification, judges)))


def _tiers(deployment: Deployment) -> dict[Route, tuple[int, ...]]:
    """Servers behind which something is left when their prefix caches are emptied, or may be: by route."""
    roles = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}
    with_tier = {
        route: tuple(index for index, server in enumerate(deployment.of(role)) if _has_tier(server))
        for route, role in roles.items()
    }
    return {route: indices for route, indices in with_tier.items() if indices}


def _has_tier(server: Server) -> bool:
    return server.has(Connector.OFFLOADING) is True or bool(server.unknown_connectors)


def _block_sizes(deployment: Deployment) -> list[int]:
    """Of the servers that tell it; where none does, vLLM's usual one.

    A prompt's number fits into any block; a probe of another length than whole blocks counts for what it finds.
    """
    return [server.block_size for server in deployment.servers if server.block_size is not None] or [16]
