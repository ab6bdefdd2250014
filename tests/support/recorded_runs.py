"""Recorded runs for tests of the benches, and rules that accuse what a test wants."""

import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.synthetic import KINDS, draw_outputs
from harness.verify.judging.forcing import Forced
from harness.verify.judging.ruling import Ruling, rule_on

Wrong = Callable[[Sequence[Forced]], Mapping[int, str]]


def output(*drift: float | None, **more: Any) -> dict[str, Any]:
    """An output as it stands in a file, with these drifts and no other error."""
    zeros = [0.0] * len(drift)
    return {"regret": zeros, "drift": list(drift), "margin_error": zeros, "margin": [1.0] * len(drift), **more}


def content(
    controls: Sequence[dict[str, Any]], served: Sequence[tuple[dict[str, Any], bool]], **more: Any
) -> dict[str, Any]:
    """A run as it stands in a file. ``served``: each output, and whether it was damaged."""
    told = [{**one, "damaged": damaged} for one, damaged in served]
    return {"model": "m", "kind": "none", "concurrency": 4, "control": list(controls), "served": told, **more}


def write(path: Path, run: Any) -> Path:
    """Write a recorded run."""
    with lzma.open(path, "wt") as file:
        json.dump(run, file)
    return path


@cache
def _some_ruling() -> Ruling:
    rng = np.random.default_rng(0)
    ruling = rule_on(*(draw_outputs(rng, KINDS["gaussian"], 32, 20) for _ in range(2)))
    assert isinstance(ruling, Ruling)
    return ruling


def planted(wrong: Wrong) -> Callable[..., Ruling]:
    """A rule that accuses what ``wrong`` names of the served outputs, and doubts nothing."""
    return lambda _controls, served, *_: replace(_some_ruling(), wrong=wrong(served), doubtful={})


def accuse_all(served: Sequence[Forced]) -> Mapping[int, str]:
    """Every output."""
    return dict.fromkeys(range(len(served)), "planted")


def accuse_none(_served: Sequence[Forced]) -> Mapping[int, str]:
    """No output."""
    return {}


def accuse_loud(served: Sequence[Forced]) -> Mapping[int, str]:
    """Outputs whose first token drifts by a nat."""
    return {index: "loud" for index, one in enumerate(served) if one.drift[0] >= 1}
