"""result.json: the flat keys of a ``vllm bench serve`` result, followed by the harness's own keys.

Keys and units are those of vLLM 0.32.0's benchmark: milliseconds for statistics, seconds in the detailed arrays,
``request_rate`` "inf" for no limit. ``date`` is UTC. A value that was not measured is null, since JSON has no NaN.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from harness.facts import Deployment, Server
from harness.history import History, Operation, RunStarted
from harness.load.latency import LatencyDetail, LatencyReport, inter_token_latencies
from harness.reports.faults import faults_as_json
from harness.reports.kv_transfer import json_bounds, json_number, kv_transfer
from harness.reports.measured import run_started, under_test
from harness.reports.strict_json import strict
from harness.reports.verification_cost import verification_cost
from harness.store.redact import redact_argv
from harness.verdict import Check, Comparison, Judgement

FORMAT = 1
"""Version of the harness's own keys, stored as ``format``. It is raised if a key's meaning or unit changes or a key is
removed, not if one is added. Files without it are of earlier versions; tests/data/runs/README.md lists their keys."""
MOST_FINDINGS = 1000
"""Findings stored per check; ``findings_total`` counts all of them."""


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """The load's settings, named like the flags of ``vllm bench serve``."""

    num_prompts: int
    max_concurrency: int | None = None
    request_rate: float = math.inf
    """Requests per second."""
    burstiness: float = 1.0
    arrival: Mapping[str, Any] | None = None
    """The keys of an open loop, which replace the two above; None: a closed loop, or the times of a trace."""
    backend: str = "openai"
    label: str | None = None
    tokenizer_id: str | None = None
    """None: the model's own."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The user's own keys, replaced by keys of the harness with the same name."""
    goodput: Mapping[str, float] = field(default_factory=dict)
    """The objectives that a good request keeps: milliseconds by metric. Empty: goodput is not counted."""
    detailed: bool = False
    """Whether to add the arrays with one entry per request."""


def result(  # noqa: PLR0913, PLR0917 - the parts of a run's result
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    latency: LatencyReport,
    detail: LatencyDetail,
    load: LoadSettings,
) -> dict[str, Any]:
    """The content of the file, fit for strict JSON. Raises ValueError if the history has no first entry."""
    started = run_started(history)
    content = {
        **load.metadata,
        **_setup(started, deployment, load),
        **latency.as_keys(),
        "request_goodput": None,
        **detail.as_keys(),
        **(_arrays(under_test(history)) if load.detailed else {}),
        "format": FORMAT,
        "verdict": judgement.verdict.value,
        "checks": [_check(check) for check in judgement.checks],
        "kv_transfer": kv_transfer(deployment, judgement),
        "outputs": asdict(judgement.outputs),
        "verification_cost": asdict(verification_cost(history)),
        "faults": faults_as_json(history),
        "deployment": _deployment(deployment),
        "seed": started.seed,
        "argv": list(redact_argv(started.argv)),
        "commit": started.commit,
        "harness_version": started.harness_version,
        "scenarios": list(started.scenarios),
        "interrupted": history.ended_early,
    }
    return {key: strict(value) for key, value in content.items()}


def _setup(started: RunStarted, deployment: Deployment, load: LoadSettings) -> dict[str, Any]:
    return {
        "date": datetime.fromtimestamp(started.wall, UTC).strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": load.backend,
        "backend": load.backend,
        "label": load.label,
        "model_id": deployment.model,
        "tokenizer_id": load.tokenizer_id or deployment.model_path or deployment.model,
        "num_prompts": load.num_prompts,
        "request_rate": "inf" if math.isinf(load.request_rate) else load.request_rate,
        "burstiness": load.burstiness,
        "max_concurrency": load.max_concurrency,
        **(load.arrival or {}),
    }


def _arrays(operations: Sequence[Operation]) -> dict[str, list[Any]]:
    """One entry per operation, in the order of sending; seconds. As in vLLM, 0 and [] if nothing arrived."""
    return {
        "input_lens": [_prompt_tokens(operation) for operation in operations],
        "output_lens": [sum(len(c.token_ids) for c in operation.ended.choices) for operation in operations],
        "ttfts": [_ttft(operation) for operation in operations],
        "itls": [inter_token_latencies(operation.ended) for operation in operations],
        "latencies": [operation.ended.at - operation.sent.intended_at for operation in operations],
        "start_times": [operation.sent.at for operation in operations],
        "generated_texts": ["".join(c.text for c in operation.ended.choices[:1]) for operation in operations],
        "errors": [operation.ended.cause for operation in operations],
    }


def without_arrays(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it is without ``LoadSettings.detailed``."""
    arrays = _arrays(())
    return {key: value for key, value in content.items() if key not in arrays}


def _prompt_tokens(operation: Operation) -> int:
    if operation.ended.usage:
        return operation.ended.usage.prompt_tokens
    return len(operation.ended.prompt_token_ids or ())


def _ttft(operation: Operation) -> float:
    times = operation.ended.token_times
    return times[0] - operation.sent.intended_at if times else 0.0


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "verdict": check.verdict.value,
        "summary": check.summary,
        "comparisons": [_comparison(comparison) for comparison in check.comparisons],
        "findings": [asdict(finding) for finding in check.findings[:MOST_FINDINGS]],
        "findings_total": len(check.findings),
        "notes": list(check.notes),
        "advice": None if check.advice is None else asdict(check.advice),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "scenario": comparison.scenario,
        "phase": comparison.phase,
        "server": comparison.server,
        "counter": comparison.counter,
        "expected": json_bounds(comparison.expected),
        "observed": json_number(comparison.observed),
        "verdict": comparison.verdict.value,
        "why_unknown": comparison.why_unknown,
    }


def _deployment(deployment: Deployment) -> dict[str, Any]:
    return {
        "engine": deployment.engine,
        "version": _common(deployment, "version"),
        "connector": _common(deployment, "connector_names"),
        "block_size": _common(deployment, "block_size"),
        "num_blocks": _common(deployment, "num_blocks"),
        "offload_block_size": _common(deployment, "offload_block_size"),
        "offload_blocks": _common(deployment, "offload_blocks"),
        "device": deployment.device,
        "launched": deployment.launched,
        "servers": [_server(server) for server in deployment.servers],
    }


def _server(server: Server) -> dict[str, Any]:
    return {"name": server.name, "role": server.role.value, "version": server.version}


def _common(deployment: Deployment, name: str) -> Any:
    """The value that all servers have, or ``{server: value}`` if they differ."""
    values = {server.name: getattr(server, name) for server in deployment.servers}
    return next(iter(values.values())) if len(set(values.values())) == 1 else values
