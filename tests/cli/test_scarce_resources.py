"""A disk that fills up, and a limit of open files: a clear end, and never a verdict better than the evidence."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SIM = ("--engine", "sim", "--plain", "--num-warmups", "1", "--num-prompts", "60", "--verify", "sample:4")


def limited(limit: Callable[[], None], where: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "harness", *SIM, "--result-dir", str(where), *more]
    # The limit holds for this run and its servers alone.
    return subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=limit)


def test_a_disk_that_is_full_in_mid_run_ends_it_and_what_was_written_is_judged(tmp_path: Path) -> None:
    size = 100 * 1024
    ran = limited(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), tmp_path)
    assert ran.returncode == 4, ran.stdout + ran.stderr
    assert "The history could not be written" in ran.stderr
    assert "--result-dir" in ran.stderr
    assert "Traceback" not in ran.stderr
    words = [sys.executable, "-m", "harness", "check", str((tmp_path / "latest").resolve()), "--plain"]
    judged = subprocess.run(words, capture_output=True, text=True, check=False)
    assert judged.returncode == 3, judged.stdout + judged.stderr
    assert "the run ended early" in judged.stdout.splitlines()[0]


def test_few_open_files_accuse_no_deployment(tmp_path: Path) -> None:
    limit = (48, 48)
    ran = limited(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit), tmp_path, "--concurrency", "60")
    assert ran.returncode in (3, 4), ran.stdout + ran.stderr
    if ran.returncode == 3:
        result = json.loads((tmp_path / "latest" / "result.json").read_text())
        assert result["verdict"] == "unknown"
        assert "ulimit -n" in ran.stdout
