"""Writes what one stored run shows about noise into a file that ``bench.noise`` reads.

    python -m bench.record RUN_DIR OUT.json.xz [--ledger LEDGER]

The run's outputs must have been teacher-forced (``--verify all``). The ledger is that of ``bench.damage``: one JSON
object a line, whose ``request`` was damaged. Each output has, besides the arrays of ``bench.noise``, its request's id,
its number of prompt tokens, and the log-probabilities of its first token (pairs of token id and nats, the served token
first) as decode and as prefill gave them. Values are rounded to 1e-5 nats, log-probabilities to 1e-7.
"""

import argparse
import json
import lzma
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.history import History, Operation, Outcome
from harness.scenario import Purpose
from harness.store import load_run
from harness.verify.asking.outputs import most_in_flight
from harness.verify.judging.forcing import Forced, compare_with_forcing, forcings

Json = dict[str, Any]


def recorded(history: History, model: str, damaged: Mapping[str, str]) -> Json:
    """The content of the file. ``damaged``: the kind of damage by the id of the damaged request."""
    found = forcings(history)
    rows: dict[str, list[Json]] = {"control": [], "served": []}
    for operation in history.operations():
        request = operation.request
        side = "control" if request.purpose is Purpose.CONTROL else "served" if request.of_load else None
        if side is None or operation.outcome is not Outcome.OK or request.request_id not in found:
            continue
        result = compare_with_forcing(operation, found[request.request_id])
        for one in () if isinstance(result, str) else result:
            rows[side].append({**_arrays(one), **_facts(operation, damaged)})
    kind = next(iter(damaged.values()), "none")
    return {"format": 1, "model": model, "kind": kind, "concurrency": most_in_flight(history), **rows}


def _arrays(one: Forced) -> Json:
    columns = {"regret": one.regret, "drift": one.drift, "margin_error": one.margin_error, "margin": one.margin}
    return {
        name: [round(v, 5) if np.isfinite(v) else None for v in column.tolist()] for name, column in columns.items()
    }


def _facts(operation: Operation, damaged: Collection[str]) -> Json:
    return {
        "request": operation.request.request_id,
        "damaged": operation.request.request_id in damaged,
        "prompt_tokens": len(operation.prompt_token_ids or ()),
        "decode_first": [(token, round(logprob, 7)) for token, logprob in operation.ended.first_logprobs],
        "prefill_first": [(token, round(logprob, 7)) for token, logprob in operation.ended.prefill_first],
    }


def _damaged(ledger: Path | None) -> dict[str, str]:
    lines = map(json.loads, ledger.read_text().splitlines() if ledger else ())
    return {line["request"]: line["kind"] for line in lines}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.record", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ledger", type=Path)
    flags = parser.parse_args(argv)
    deployment, history = load_run(flags.run)
    content = recorded(history, deployment.model, _damaged(flags.ledger))
    with lzma.open(flags.out, "wt") as out:
        json.dump(content, out)
    counts = {side: len(content[side]) for side in ("control", "served")}
    print(f"{flags.out}: {counts['control']} control outputs, {counts['served']} of the load")


if __name__ == "__main__":
    main()
