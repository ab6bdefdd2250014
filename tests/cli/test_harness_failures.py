"""A failure inside the harness gives exit code 4 and one paragraph on stderr: no verdict and no traceback."""

import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.cli import catalogue, commands, main, measure, run
from harness.errors import DeployError, HarnessError, UsageError
from harness.run import run_started_now

Fails = Callable[[BaseException], tuple[int, str]]


def failing(error: BaseException) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def failing_to_open(error: BaseException) -> Callable[..., Any]:
    @asynccontextmanager
    async def fail(*_: object, **__: object) -> AsyncIterator[None]:
        raise error
        yield

    return fail


@pytest.fixture
def run_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Exit code and stderr of a run in which this error is raised."""

    def run_it(error: BaseException) -> tuple[int, str]:
        monkeypatch.setattr(run, "measuring", failing_to_open(error))
        code = main(["--engine", "sim", "--plain", "--result-dir", str(tmp_path)])
        return code, capsys.readouterr().err

    return run_it


def test_an_unforeseen_error_is_exit_4_with_its_traceback_in_the_runs_directory(
    run_that_fails: Fails, tmp_path: Path
) -> None:
    code, shown = run_that_fails(KeyError("surprise"))
    assert code == 4
    assert len(shown.splitlines()) == 1
    assert shown.startswith("error: the harness itself failed: KeyError: 'surprise'")
    assert "says nothing about the deployment" in shown
    where = (tmp_path / "latest").resolve()
    assert str(where) in shown
    traceback = (where / "crash.txt").read_text()
    assert traceback.startswith("Traceback")
    assert "KeyError: 'surprise'" in traceback


def test_an_unforeseen_error_inside_exception_groups_is_a_crash(run_that_fails: Fails, tmp_path: Path) -> None:
    inner = ExceptionGroup("inner", [ValueError("a label that is no number"), DeployError("decode-0 ended")])
    code, shown = run_that_fails(ExceptionGroup("outer", [inner]))
    assert code == 4
    assert "ValueError: a label that is no number; DeployError: decode-0 ended" in shown
    assert "a label that is no number" in (tmp_path / "latest" / "crash.txt").read_text()


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("give another port"), 2), (DeployError("it died"), 4), (HarnessError("disk"), 4)]
)
def test_a_known_error_is_taken_out_of_its_groups(
    error: HarnessError, code: int, run_that_fails: Fails, tmp_path: Path
) -> None:
    grouped = ExceptionGroup("tasks", [ExceptionGroup("more", [error])])
    assert run_that_fails(grouped) == (code, f"error: {error}\n")
    assert not (tmp_path / "latest" / "crash.txt").exists()


def test_if_the_traceback_cannot_be_stored_the_message_shows_frames(
    run_that_fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise HarnessError("no room")

    monkeypatch.setattr("harness.cli.crash.save_text", full)
    code, shown = run_that_fails(KeyError("surprise"))
    assert code == 4
    assert "KeyError: 'surprise'" in shown
    assert "test_harness_failures.py" in shown
    assert "could not be stored" in shown


def test_a_crash_outside_of_a_run_names_no_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.cli.catalogue.catalogue", lambda: 1 // 0)
    assert main(["list"]) == 4
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert len(shown.splitlines()) == 1


def test_a_broken_installation_is_exit_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, commands.__name__, None)
    assert main(["list"]) == 4
    assert "harness.cli.commands" in capsys.readouterr().err


def test_credentials_in_an_unforeseen_error_are_neither_shown_nor_stored(run_that_fails: Fails, tmp_path: Path) -> None:
    _, shown = run_that_fails(ValueError("no route to http://me:sesame@h:1/v1"))
    assert "sesame" not in shown
    assert "sesame" not in (tmp_path / "latest" / "crash.txt").read_text()


@pytest.mark.slow
def test_a_run_does_not_need_git(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--engine", "sim", "--num-prompts", "4", "--result-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path / "nothing")},
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 3), done.stdout + done.stderr


def test_an_unforeseen_error_at_warm_up_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.deploy.session._warm_up", failing(OSError("400, message: Got more than 8190 bytes")))
    assert main(["--engine", "sim", "--plain", "--result-dir", str(tmp_path)]) == 4
    assert "Got more than 8190 bytes" in capsys.readouterr().err


def test_a_git_that_cannot_be_run_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", failing_at_once(PermissionError("git")))
    assert run_started_now((), seed=1, names=()).commit is None


def failing_at_once(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.slow
def test_a_catalogue_goes_on_with_the_other_deployments_and_ends_in_exit_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure of the harness on one deployment does not affect the rows of the others."""
    real, calls = catalogue.measuring, []

    def measured(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        return failing_to_open(KeyError("surprise"))() if len(calls) == 1 else real(*arguments, **more)

    monkeypatch.setattr(catalogue, "measuring", measured)
    names = ["--workload", "short_prompt", "--workload", "tour_nixl_alone", "--all-deployments"]
    assert main(["--engine", "sim", *names, "--num-warmups", "1", "--plain", "--result-dir", str(tmp_path)]) == 4
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "2 workloads: 1 unknown, 1 valid"
    assert "KeyError: 'surprise'" in shown.err


def test_a_crash_after_the_deployment_was_up_says_how_to_judge_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "carry_out", failing(KeyError("surprise")))
    assert main(["--engine", "sim", "--plain", "--num-warmups", "1", "--result-dir", str(tmp_path)]) == 4
    assert f"python -m harness check {(tmp_path / 'latest').resolve()}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), "--result-dir"),
        (ExceptionGroup("several", [MemoryError()]), "memory"),
    ],
)
def test_a_machine_that_has_run_out_of_something_is_exit_4_and_says_what_to_do(
    run_that_fails: Fails, error: Exception, remedy: str
) -> None:
    code, shown = run_that_fails(error)
    assert code == 4
    assert remedy in shown
    assert "report this failure" not in shown
