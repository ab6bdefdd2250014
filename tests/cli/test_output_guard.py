"""A reader that goes away, a full disk, a closed stream: no traceback, and the exit code is still the run's own."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.output import UnfailingStream, unfailing_output

PYTHON = (sys.executable, "-m", "harness")


def shell(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run it in bash; ``HARNESS`` is the command."""
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HARNESS": " ".join(PYTHON), "RUNS": str(directory)},
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param("$HARNESS list > /dev/full", 0, marks=pytest.mark.slow),
        ("$HARNESS list | head -1; exit ${PIPESTATUS[0]}", 0),
        ("$HARNESS list | true; exit ${PIPESTATUS[0]}", 0),
        pytest.param("$HARNESS list >&-", 0, marks=pytest.mark.slow),
        pytest.param("$HARNESS --help > /dev/full", 0, marks=pytest.mark.slow),
        ("$HARNESS --help | true; exit ${PIPESTATUS[0]}", 0),
        pytest.param("$HARNESS --no-such-flag 2> /dev/full", 2, marks=pytest.mark.slow),
        pytest.param("$HARNESS check /nonexistent 2> /dev/full", 2, marks=pytest.mark.slow),
        ("$HARNESS check /nonexistent 2>&-", 2),
        ("PYTHONIOENCODING=ascii $HARNESS list", 0),
    ],
)
def test_the_exit_code_does_not_depend_on_the_reader(tmp_path: Path, command: str, code: int) -> None:
    done = shell(command, tmp_path)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == code, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("readers", ["| true", "> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_a_run_without_readers_is_stored_whole_and_exits_with_its_verdict(tmp_path: Path, readers: str) -> None:
    done = shell(
        f"$HARNESS --engine sim --workload short_prompt --num-warmups 1 --result-dir $RUNS {readers}; "
        "exit ${PIPESTATUS[0]}",
        tmp_path,
    )
    assert "Traceback" not in done.stderr
    result = json.loads((tmp_path / "latest" / "result.json").read_text())
    assert (result["verdict"], done.returncode) == ("valid", 0)
    again = shell("$HARNESS check $RUNS/latest --plain", tmp_path)
    assert again.returncode == 0
    assert again.stdout.startswith("VALID")


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:  # noqa: ARG002 - the signature is io's
        raise BrokenPipeError


def test_printing_through_a_guard_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither print, nor a library that looks the stream up itself, meets the error."""
    monkeypatch.setattr(sys, "stdout", Broken())
    with unfailing_output():
        print("lost")
        Console().print("lost")
        sys.stdout.writelines(["lost"])
        sys.stdout.flush()
        guard = sys.stdout
    assert isinstance(guard, UnfailingStream)
    assert guard.lost


def test_a_guard_passes_on_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with unfailing_output():
        print("kept")
    assert stream.getvalue() == "kept\n"
    assert sys.stdout is stream


def test_a_character_that_the_terminal_lacks_is_written_as_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with unfailing_output():
        print("caf\u00e9")
    assert raw.getvalue() == b"caf\\xe9\n"
