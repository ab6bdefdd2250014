"""Runs the command line as a user does: a deployment kept up by ``serve``, and whole runs."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_WITHIN = 400
"""Seconds; on two quiet cores a run that launches takes about 75."""


@dataclass(frozen=True)
class Served:
    """A running deployment, with the facts that ``serve`` printed."""

    facts: dict[str, Any]

    def attach(self, base_url: str | None = None) -> list[str]:
        """Flags that attach to the deployment; ``base_url`` replaces its proxy's URL."""
        return [
            *("--base-url", base_url or self.facts["base_url"]),
            *("--prefill-url", self.facts["prefill_urls"][0]),
            *("--decode-url", self.facts["decode_urls"][0]),
        ]


@dataclass(frozen=True)
class Ran:
    """One invocation of the command line."""

    status: int
    output: str
    errors: str
    result: dict[str, Any]
    directory: Path


@contextmanager
def serving(
    directory: Path, environment: Mapping[str, str] | None = None, flags: Sequence[str] = ()
) -> Iterator[Served]:
    """Keep ``python -m harness serve`` running; at the end, stop it and everything that it started."""
    with (directory / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "serve", "--result-dir", str(directory), *flags],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    try:
        assert process.stdout is not None
        # The facts; empty if `serve` failed.
        line = process.stdout.readline()
        assert line, (directory / "stderr").read_text()
        yield Served(json.loads(line))
    finally:
        process.terminate()
        process.communicate(timeout=60)


def run_harness(result_dir: Path, *arguments: str) -> Ran:
    """Run ``python -m harness ARGUMENTS`` to its end; ``result`` is empty if the run wrote none."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments, "--result-dir", str(result_dir)],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_WITHIN,
    )
    latest = result_dir / "latest"
    file = latest / "result.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    return Ran(done.returncode, done.stdout, done.stderr, result, latest.resolve())
