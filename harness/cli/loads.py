"""The load that the command line names, and how its answers are verified."""

from collections.abc import Sequence

from harness.cli.options import DatasetOptions, LoadOptions
from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.dataset import Line, dataset_load, read_lines
from harness.loads.random_load import random_load
from harness.preflight import Demand
from harness.scenario import Scenario
from harness.verify.asking import VerifyOptions, VerifyPolicy


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


def verify_options(load: LoadOptions, deployment: Deployment, *, salt: str, everything: bool = False) -> VerifyOptions:
    """How a run's outputs are verified; ``everything``: all of them, whatever ``--verify`` says.

    Prefix caches are emptied, to probe the offload tiers, on servers that the harness launched, else where
    ``--probe-tiers`` allows it.
    """
    return VerifyOptions(
        policy=VerifyPolicy.parse("all" if everything else load.verify),
        salt=salt,
        seed=load.seed,
        concurrency=None if everything else load.concurrency,
        reference=load.reference_url is not None,
        probe_tiers=deployment.launched or load.probe_tiers,
    )


def _block_sizes(deployment: Deployment) -> list[int]:
    """Of the servers that report it; where none does, vLLM's usual one: a prompt's number fits into any block."""
    return [server.block_size for server in deployment.servers if server.block_size is not None] or [16]
