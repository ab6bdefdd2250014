"""Simulated pairs with planted bugs, served over HTTP by processes of their own, and the command line run on them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIM, PROXY = "harness.sim", "harness.proxy"
WITHIN = 120.0
"""Seconds."""
STEPS = '{"step_seconds": 0.001}'
"""A third of the default: tests wait less, and outputs of 40 tokens still overlap."""


@dataclass(frozen=True)
class Pair:
    """URLs of a served pair."""

    proxy: str
    prefill: str
    decode: str

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--base-url", self.proxy, "--prefill-url", self.prefill, "--decode-url", self.decode)


@contextmanager
def served(*bugs: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        plants = [word for bug in bugs for word in ("--plant", bug)]
        connector = ("--connector", "nixl", "--flip-rate", "0", "--fields", STEPS)
        sim = stack.enter_context(_serving(SIM, "--prefill-port", "0", "--decode-port", "0", *connector, *plants))
        prefill, decode = re.findall(r"http://[\d.:]+", sim)
        line = stack.enter_context(_serving(PROXY, "--port", "0", "--prefill", prefill, "--decode", decode))
        yield Pair(re.findall(r"http://[\d.:]+", line)[0], prefill, decode)


@contextmanager
def _serving(module: str, *arguments: str) -> Iterator[str]:
    """Start the module; yields the line that it prints when it listens."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=WITHIN)


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str
    directory: Path | None
    """The directory that the command stored."""

    @property
    def result(self) -> dict[str, Any]:
        assert self.directory is not None, self.err
        content: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return content

    @property
    def left(self) -> list[dict[str, Any]]:
        """The requests of the reproducer."""
        assert self.directory is not None, self.err
        return [json.loads(line) for line in (self.directory / "reproducer.jsonl").read_text().splitlines()]


def harness(*arguments: str | Path, environment: dict[str, str] | None = None) -> Ran:
    """``python -m harness ARGUMENTS``."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
        env={**os.environ, **(environment or {})},
    )
    stored = re.findall(r"^stored: (.*)$", done.stdout, re.MULTILINE)
    return Ran(done.returncode, done.stdout, done.stderr, Path(stored[-1]) if stored else None)


def write_load(path: Path, count: int, *, longest: int = 60, output: int = 4) -> Path:
    """A dataset of distinct random prompts."""
    rng = np.random.default_rng(count)
    prompts = [[300 + number, *rng.integers(300, 4000, rng.integers(20, longest)).tolist()] for number in range(count)]
    path.write_text("".join(json.dumps({"prompt": prompt, "output_tokens": output}) + "\n" for prompt in prompts))
    return path


def bash(script: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would."""
    return subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
        env={**os.environ, **variables},
    )
