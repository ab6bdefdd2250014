"""A signal before anything was started gives no traceback; a signal after the verdict changes nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from harness.cli import main
from harness.errors import ExitCode, UsageError


def command_with_a_signal(how: int, then: Callable[[], ExitCode]) -> Callable[..., Any]:
    """A command that gets a signal while it judges and prints, and awaits nothing more."""

    async def perform(_: object) -> ExitCode:
        os.kill(os.getpid(), how)
        return then()

    return perform


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", [ExitCode.VALID, ExitCode.INVALID, ExitCode.UNKNOWN])
def test_the_exit_code_is_that_of_the_verdict_that_was_shown(
    how: int, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.cli.commands.perform", command_with_a_signal(how, lambda: code))
    assert main(["list"]) == code
    assert "interrupted" not in capsys.readouterr().err


def test_an_error_after_the_signal_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> ExitCode:
        raise UsageError("name another port")

    monkeypatch.setattr("harness.cli.commands.perform", command_with_a_signal(signal.SIGINT, fail))
    assert main(["list"]) == ExitCode.USAGE
    assert capsys.readouterr().err == "error: name another port\n"


_WHILE_IT_IS_LOADED = """
import runpy, sys

class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "harness.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder)
runpy.run_module("harness", run_name="__main__")
"""


def test_ctrl_c_while_the_harness_is_being_loaded_is_no_traceback() -> None:
    words = [sys.executable, "-c", _WHILE_IT_IS_LOADED]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "interrupted: nothing was started\n")
