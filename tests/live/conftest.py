"""One real pair, launched once, for all live tests: ``python -m harness serve``, as a user would."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from command_line import Served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The shared pair; ended, with everything it started, when the session ends."""
    directory = tmp_path_factory.mktemp("serve")
    with (directory / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "serve", "--result-dir", str(directory)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # the facts, or nothing if it failed
        assert line, (directory / "stderr").read_text()
        yield Served(json.loads(line))
    finally:
        process.terminate()
        process.communicate(timeout=60)
