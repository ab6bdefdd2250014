"""Whatever goes wrong inside the harness is exit 4 and one paragraph on stderr: no verdict and no traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import catalogue, commands, main, measure, run
from harness.errors import DeployError, HarnessError, UsageError

Raise = Callable[[BaseException], None]


def failing(error: BaseException) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def run_that_fails(error: BaseException, directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(run, "measure", failing(error))
    return main(["--engine", "sim", "--plain", "--result-dir", str(directory)])


def test_what_nobody_foresaw_is_exit_4_with_its_traceback_in_the_runs_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_that_fails(KeyError("surprise"), tmp_path, monkeypatch)
    told = capsys.readouterr().err
    assert code == 4
    assert len(told.splitlines()) == 1
    assert told.startswith("error: the harness itself failed: KeyError: 'surprise'")
    assert "says nothing about the deployment" in told
    where = (tmp_path / "latest").resolve()
    assert str(where) in told
    traceback = (where / "crash.txt").read_text()
    assert traceback.startswith("Traceback")
    assert "KeyError: 'surprise'" in traceback


def test_the_same_inside_groups_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = ExceptionGroup("inner", [ValueError("a label that is no number"), DeployError("decode-0 ended")])
    assert run_that_fails(ExceptionGroup("outer", [inner]), tmp_path, monkeypatch) == 4
    told = capsys.readouterr().err
    assert "ValueError: a label that is no number; DeployError: decode-0 ended" in told
    assert "a label that is no number" in (tmp_path / "latest" / "crash.txt").read_text()


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("give another port"), 2), (DeployError("it died"), 4), (HarnessError("disk"), 4)]
)
def test_an_error_that_the_harness_knows_is_known_inside_a_group(
    error: HarnessError, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grouped = ExceptionGroup("tasks", [ExceptionGroup("more", [error])])
    assert run_that_fails(grouped, tmp_path, monkeypatch) == code
    assert capsys.readouterr().err == f"error: {error}\n"
    assert not (tmp_path / "latest" / "crash.txt").exists()


def test_a_traceback_that_cannot_be_stored_is_told_as_far_as_a_line_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise HarnessError("no room")

    monkeypatch.setattr("harness.cli.crash.save_text", full)
    assert run_that_fails(KeyError("surprise"), tmp_path, monkeypatch) == 4
    told = capsys.readouterr().err
    assert "KeyError: 'surprise'" in told
    assert "test_harness_failures.py" in told
    assert "could not be stored" in told


def test_outside_of_any_run_it_is_told_without_a_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.cli.catalogue.catalogue", lambda: 1 // 0)
    assert main(["list"]) == 4
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert len(told.splitlines()) == 1


def test_an_installation_that_is_broken_is_exit_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, commands.__name__, None)
    assert main(["list"]) == 4
    assert "harness.cli.commands" in capsys.readouterr().err


def test_credentials_in_an_unforeseen_error_are_neither_told_nor_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_that_fails(ValueError("no route to http://me:sesame@h:1/v1"), tmp_path, monkeypatch)
    assert "sesame" not in capsys.readouterr().err
    assert "sesame" not in (tmp_path / "latest" / "crash.txt").read_text()


@pytest.mark.slow
def test_a_machine_without_git_runs_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--engine", "sim", "--num-prompts", "4", "--result-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path / "nothing")},
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 3), done.stdout + done.stderr


def test_a_server_that_redirects_and_a_proxy_that_answers_with_a_huge_header_are_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever error a library raises at warm-up, the exit code says that nothing was judged."""
    monkeypatch.setattr("harness.deploy.session._warm_up", failing(OSError("400, message: Got more than 8190 bytes")))
    assert main(["--engine", "sim", "--plain", "--result-dir", str(tmp_path)]) == 4
    assert "Got more than 8190 bytes" in capsys.readouterr().err


def test_what_a_run_starts_with_cannot_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", failing_at_once(PermissionError("git")))
    assert measure.start_of((), seed=1, names=()).commit is None


def failing_at_once(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.slow
def test_a_catalogue_goes_on_with_the_other_deployments_and_ends_in_exit_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The harness's own failure on one deployment costs no other one its rows."""
    real, calls = catalogue.measure, []

    async def measured(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("surprise")
        return await real(*arguments, **more)

    monkeypatch.setattr(catalogue, "measure", measured)
    names = ["--workload", "short_prompt", "--workload", "tour_nixl_alone", "--all-deployments"]
    assert main(["--engine", "sim", *names, "--num-warmups", "1", "--plain", "--result-dir", str(tmp_path)]) == 4
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "2 workloads: 1 unknown, 1 valid"
    assert "KeyError: 'surprise'" in told.err


def test_a_crash_after_the_deployment_was_up_says_how_to_judge_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "_fire", failing(KeyError("surprise")))
    assert main(["--engine", "sim", "--plain", "--num-warmups", "1", "--result-dir", str(tmp_path)]) == 4
    assert f"python -m harness check {(tmp_path / 'latest').resolve()}" in capsys.readouterr().err
