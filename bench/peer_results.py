"""Reads from each load generator's result files what it reports of single requests.

Requests are matched with the stub's streams by X-Request-Id (the harness, vLLM, AIPerf) or by the response id that the
stub wrote (GuideLLM). Tools that report no single requests are not read: inference-perf's reports are summaries, wrk
knows no tokens.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.peer_answers import number_of
from bench.stamps import Array, Stamps
from harness.history import Outcome
from harness.store import load_run


@dataclass(frozen=True, slots=True)
class Reported:
    """One request as its client reports it, in seconds."""

    row: int
    """Its stream's row in the stub's stamps."""
    ttft: float
    """From the actual sending to the first token."""
    gaps: Array | None
    """Between tokens, one fewer than tokens; None if the client reports their mean alone."""
    mean_gap: float


def ours(folder: Path, stamps: Stamps) -> Iterator[Reported]:
    """The operations of the run's journal."""
    rows = stamps.by_id
    (run,) = (path for path in (folder / "runs").iterdir() if path.is_dir() and not path.is_symlink())
    _, history = load_run(run)
    for operation in history.operations():
        row, times = rows.get(operation.request.request_id), operation.ended.token_times
        if row is not None and times and operation.outcome is Outcome.OK:
            yield _reported(row, times[0] - operation.sent.at, np.diff(times))


def vllm(folder: Path, stamps: Stamps) -> Iterator[Reported]:
    """``--save-detailed``: one entry per request, in the order of the numbers in the request ids."""
    rows, found = stamps.by_id, json.loads((folder / "vllm.json").read_text())
    for number, (ttft, gaps) in enumerate(zip(found["ttfts"], found["itls"], strict=True)):
        if (row := rows.get(f"bench-{number}")) is not None and gaps:
            yield _reported(row, ttft, np.array(gaps))


def aiperf(folder: Path, stamps: Stamps) -> Iterator[Reported]:
    """``profile_export.jsonl``: milliseconds."""
    rows = stamps.by_id
    for line in (folder / "aiperf" / "profile_export.jsonl").read_text().splitlines():
        record = json.loads(line)
        metrics, row = record["metrics"], rows.get(record["metadata"]["x_request_id"])
        if row is not None and "inter_chunk_latency" in metrics:
            yield _reported(row, _ms(metrics["time_to_first_token"]), np.array(_values(metrics["inter_chunk_latency"])))


def guidellm(folder: Path, stamps: Stamps) -> Iterator[Reported]:
    """The successful requests of the first benchmark: milliseconds, and no single gaps."""
    rows = stamps.by_number
    benchmark = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]
    for one in benchmark["requests"]["successful"]:
        ttft, mean = one["time_to_first_token_ms"] / 1000, one["inter_token_latency_ms"] / 1000
        if (row := rows.get(number_of(one["response_id"]))) is not None:
            yield Reported(row, ttft, None, mean)


READERS: Mapping[str, Callable[[Path, Stamps], Iterator[Reported]]] = {
    "harness, whole command line": ours,
    "vllm bench serve": vllm,
    "AIPerf": aiperf,
    "GuideLLM": guidellm,
}
"""By the tool's name."""


def _reported(row: int, ttft: float, gaps: Array) -> Reported:
    return Reported(row, ttft, gaps, float(gaps.mean()))


def _ms(metric: Mapping[str, Any]) -> float:
    return float(metric["value"]) / 1000


def _values(metric: Mapping[str, Any]) -> Array:
    return np.asarray(metric["value"], np.float64) / 1000
