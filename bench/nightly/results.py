"""What a run of a job found out, from its exit status and the directories that it left."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.nightly.process import Started, exit_code, how_it_ended
from bench.nightly.record import RESULT_OF, Result, Run
from harness.errors import ExitCode
from harness.redact import redact_text
from harness.reports.text import clean
from harness.store.rundir import HISTORY, RESULT

METRICS = (
    "p99_ttft_ms",
    "p50_ttft_ms",
    "p50_itl_ms",
    "p99_itl_ms",
    "p99_e2el_ms",
    "request_throughput",
    "output_throughput",
    "completed",
    "failed",
)
"""Keys of result.json that a night's record keeps."""
WRONG = "wrong_outputs"
_MOST_REASONS = 5
_VERDICTS = (ExitCode.VALID, ExitCode.INVALID, ExitCode.UNKNOWN)


def read_run(run: Run, ended: Started, directory: Path, night: Path) -> None:
    """Fill in what the run's status and its result files say."""
    run.exit_code = int(exit_code(run.status))
    run.result = RESULT_OF[ExitCode(run.exit_code)]
    stored = sorted(path.parent for path in directory.glob(f"*/{HISTORY}") if not path.parent.is_symlink())
    run.directories = [str(path.relative_to(night)) for path in stored]
    if ended.timed_out:
        _fail(run, "it was ended because it had not ended within its time limit (--job-timeout)")
    elif run.status not in set(ExitCode):
        _fail(run, f"the harness {how_it_ended(run.status)}: nothing was found out")
    elif run.exit_code in _VERDICTS:
        _read_results(run, stored)
    else:
        run.reasons = [ended.error() or "the harness itself failed; its output is in output.txt"]


def _fail(run: Run, why: str) -> None:
    run.exit_code, run.result, run.reasons = int(ExitCode.HARNESS), Result.FAILED, [why]


def _read_results(run: Run, stored: Sequence[Path]) -> None:
    try:
        results = [json.loads((path / RESULT).read_bytes()) for path in stored if (path / RESULT).exists()]
        _fill_in(run, results)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        # A damaged file, or one of another program.
        _fail(run, clean(f"its result cannot be read: {error}"))


def _fill_in(run: Run, results: Sequence[Mapping[str, Any]]) -> None:
    if not results:
        _fail(run, "it ended with a verdict, and stored no result")
        return
    run.reasons = _reasons(results) if run.result is not Result.VALID else []
    run.engine_version = ", ".join(dict.fromkeys(_version(one) for one in results))
    if len(results) == 1:
        run.metrics = metrics_of(results[0])
        run.deployment = deployment_of(results[0])


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a result that nights keep; those that it lacks are left out."""
    found = {key: float(result[key]) for key in METRICS if _number(result.get(key))}
    outputs = result.get("outputs") or {}
    if _number(outputs.get("mismatch")):
        found[WRONG] = float(outputs["mismatch"])
    return found


def deployment_of(result: Mapping[str, Any]) -> dict[str, str]:
    """What two nights must have in common to be compared. The engine's version may differ: changes of it are sought."""
    facts = result.get("deployment") or {}
    keys = ("engine", "connector", "block_size", "device", "num_blocks", "launched")
    found = {key: json.dumps(facts.get(key)) for key in keys}
    roles = [str(server.get("role")) for server in facts.get("servers") or ()]
    return found | {"model": str(result.get("model_id")), "servers": " ".join(sorted(roles))}


def _version(result: Mapping[str, Any]) -> str:
    facts = result.get("deployment") or {}
    return clean(f"{facts.get('engine') or 'unknown engine'} {facts.get('version') or ''}".strip(), 60)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reasons(results: Sequence[Mapping[str, Any]]) -> list[str]:
    every = list(dict.fromkeys(text for result in results for text in _of_result(result)))
    more = len(every) - _MOST_REASONS
    return [*every[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else [])]


def _of_result(result: Mapping[str, Any]) -> Iterator[str]:
    """Why a result is not valid: its workloads or checks that are invalid, then those that are unknown."""
    for wanted in (Result.INVALID, Result.UNKNOWN):
        for row in result.get("workloads") or ():
            if row.get("verdict") == wanted:
                why = "; ".join(map(str, row.get("reasons") or ())) or wanted
                yield _said_of(row.get("workload"), why)
        for check in () if result.get("workloads") else result.get("checks") or ():
            if check.get("verdict") == wanted:
                yield _said_of(check.get("name"), check.get("summary") or wanted)


def _said_of(name: object, why: object) -> str:
    return clean(redact_text(f"{name}: {why}"), 300)
