"""After Ctrl-C, the run so far is judged and stored, and the output says where; nothing is left running."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def interrupted(directory: Path, stage: str, *arguments: str, by: int = signal.SIGINT) -> tuple[int, str, str]:
    """A run that gets a signal when a line of its progress begins with ``stage``; exit code, stdout, stderr."""
    # A background process of a shell ignores SIGINT; this process must handle it as in a terminal.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["--engine", "sim", "--plain", "--num-warmups", "1", "--result-dir", str(directory), *arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    before = []
    for line in process.stderr:
        before.append(line)
        if line.startswith(stage):
            process.send_signal(by)
            break
    out, after = process.communicate()
    return process.returncode, out, "".join(before) + after


@pytest.mark.parametrize("by", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "stage", ["random_load/load: ", pytest.param("verification/teacher: ", marks=pytest.mark.slow)]
)
def test_the_recorded_part_of_an_interrupted_run_is_judged(tmp_path: Path, stage: str, by: int) -> None:
    code, out, err = interrupted(tmp_path, stage, "--num-prompts", "60", by=by)
    where = (tmp_path / "latest").resolve()
    assert code == 3, out + err
    assert "Traceback" not in err
    assert out.startswith("UNKNOWN: ")
    assert "the run ended early" in out.splitlines()[0]
    assert f"stored: {where}" in out
    assert f"python -m harness check {where}" in err
    again = subprocess.run(
        [sys.executable, "-m", "harness", "check", str(where), "--plain"], capture_output=True, text=True, check=False
    )
    assert (again.returncode, again.stdout) == (code, out)
    result = json.loads((where / "result.json").read_text())
    assert result["verdict"] == "unknown"
    # The load was complete, so that its counters are judged; of its outputs the report says how many were looked at.
    late = stage.startswith("verification")
    assert ("verification was interrupted after " in out) is late
    assert ("valid token_sources: " in out) is late


def test_before_its_deployment_is_up_there_is_nothing_to_judge(tmp_path: Path) -> None:
    code, out, err = interrupted(tmp_path, "sim: starting")
    assert code == 3
    assert out.startswith("UNKNOWN: the run was interrupted before its deployment was up")
    assert str((tmp_path / "latest").resolve()) in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_an_interrupted_catalogue_keeps_its_table(tmp_path: Path) -> None:
    code, out, err = interrupted(
        tmp_path, "many_identical/", "--workload", "short_prompt", "--workload", "many_identical"
    )
    assert code == 3, out + err
    assert out.splitlines()[-1] == "2 workloads: 2 unknown"
    assert f"python -m harness check {(tmp_path / 'latest').resolve()}" in err


@pytest.mark.slow
def test_an_interrupted_sweep_shows_the_rates_that_were_tried_and_is_unknown(tmp_path: Path) -> None:
    words = ("--sweep", "20,30", "--num-prompts", "12", "--goodput", "ttft:30000", "--verify", "sample:2")
    code, out, err = interrupted(tmp_path, "20 requests per second: valid", *words)
    assert code == 3, out + err
    assert "Traceback" not in err
    assert "UNKNOWN: 1 rate; the knee is at 20 requests per second" in out
    found = json.loads((tmp_path / "latest" / "sweep.json").read_text())
    assert (found["verdict"], [point["rate"] for point in found["points"]]) == ("unknown", [20.0])


@pytest.mark.slow
def test_a_killed_run_is_judged_as_far_as_it_went_and_is_never_valid(tmp_path: Path) -> None:
    code, out, _ = interrupted(tmp_path, "random_load/load: ", "--num-prompts", "60", by=signal.SIGKILL)
    where = (tmp_path / "latest").resolve()
    assert (code, out) == (-signal.SIGKILL, "")
    assert not (where / "result.json").exists()
    judged = subprocess.run(
        [sys.executable, "-m", "harness", "check", str(where), "--plain"], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 3, judged.stdout + judged.stderr
    assert "the run ended early" in judged.stdout.splitlines()[0]
