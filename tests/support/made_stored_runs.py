"""Stored runs that nobody ran, for tests of comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.compare import StoredRun
from harness.compare.metrics import LATENCIES, THROUGHPUTS
from harness.compare.stored_outputs import StoredOutput
from harness.compare.stored_run import Share
from harness.verdict import Verdict

SETTINGS = {"model": "m", "engine": "sim", "num_prompts": "400", "max_concurrency": "16"}


def output(
    tokens: Sequence[int], *, wrong: bool = False, right: bool = False, request: str = "r", lead: float = 1.0
) -> StoredOutput:
    leads = np.full(len(tokens), lead, np.float32)
    return StoredOutput(request, np.array(tokens, np.int32), leads, wrong=wrong, right=right, doubtful=False)


def stored_run(name: str, began: float = 0.0, values: Mapping[str, float] | None = None, **changes: Any) -> StoredRun:
    """A valid run in which each metric has the value 100, but for ``values``."""
    made = StoredRun(
        name=name,
        began=began,
        verdict=Verdict.VALID,
        seed=0,
        settings=SETTINGS,
        versions={"engine": "0.32.0", "harness": "0.1.0", "commit": "abc"},
        values={**{one.name: 100.0 for one in (*LATENCIES, *THROUGHPUTS)}, **(values or {})},
        within={},
        shares={"failed": Share(0, 400), "mismatch": Share(0, 40), "doubtful": Share(0, 40)},
        counters={"decode.external_kv_transfer": 219.5},
        outputs={b"one": output([1, 2, 3])},
    )
    return replace(made, **changes)


def in_turns(
    old: Sequence[float], new: Sequence[float], metric: str = "p99_ttft"
) -> tuple[list[StoredRun], list[StoredRun]]:
    """Two sets of runs, made in turns, with these values of one metric."""
    return (
        [stored_run(f"a{n}", 2.0 * n, {metric: value}) for n, value in enumerate(old)],
        [stored_run(f"b{n}", 2.0 * n + 1, {metric: value}) for n, value in enumerate(new)],
    )
