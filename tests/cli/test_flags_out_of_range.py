"""A wrong flag is refused at once with a message of one line; nothing is started."""

import argparse
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.flags import make_parser
from harness.cli.options import parse


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--concurrency", "abc"), "'abc' is not a whole number"),
        (("--concurrency", "0"), "0 is not at least 1"),
        (("--seed", "-1"), "-1 is negative"),
        (("--random-input-len", "a:b"), "'a' is not a whole number"),
        (("--random-input-len", "9:2"), "9:2 runs backwards"),
        (("--request-timeout-sec", "0"), "0: give a number of seconds above 0"),
        (("--request-timeout-sec", "nan"), "nan: give a number of seconds above 0"),
        (("--settle-timeout-sec", "-1"), "-1: give a number of seconds above 0"),
        (("--settle-timeout-sec", "inf"), "inf: give a number of seconds above 0"),
        (("--metrics-interval-sec", "0.01"), "0.01: give 0, or 0.1 to 86,400 seconds"),
        (("--metrics-interval-sec", "nan"), "nan: give 0, or 0.1 to 86,400 seconds"),
        (("--metrics-interval-sec", "often"), "'often' is not a number of seconds"),
        (("--ready-check-timeout-sec", "soon"), "'soon' is not a number of seconds"),
        (("--port", "99999999"), "99999999 is not a port"),
        (("--decode-port", "65536"), "65536 is not a port"),
        (("--prefill-port", "8001", "--prefill-port", "8002"), "--prefill-port is given 2 times"),
        (("--prefill-url", "http://", "--decode-url", "http://d"), "not a URL"),
        (("--prefill-url", "http://p:99999", "--decode-url", "http://d"), "not a URL"),
        (("--prefill-url", "http://p:x", "--decode-url", "http://d"), "not a URL"),
        (("--prefill-url", "http://[::1", "--decode-url", "http://d"), "not a URL"),
        (("--no-such-flag",), "--no-such-flag"),
        (("--engine", "sim", "--sim-noise", "pink"), "'usual', 'none', 'student', 'mixture', 'quantised'"),
        (("--sim-noise", "student"), "--sim-noise is for simulated servers"),
        (("selftest", "--sim-noise", "pink"), "'usual', 'none', 'student', 'mixture', 'quantised'"),
        (("selftest", "--jobs", "0"), "--jobs: 0 is not at least 1"),
    ],
)
def test_the_message_is_one_line_that_names_the_value(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*words, "--result-dir", str(tmp_path / "runs")])
    except SystemExit as ended:
        code = int(str(ended.code))
    line = capsys.readouterr().err
    assert code == 2
    assert message in line
    assert line.startswith("error: ")
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_one_port_for_each_server_is_accepted() -> None:
    words = ["--prefill", "2", "--prefill-port", "8001", "--prefill-port", "8002"]
    assert parse(words).target.ports == {"prefill-0": 8001, "prefill-1": 8002}


@pytest.mark.parametrize("command", ["run", "doctor", "serve", "check", "shrink", "selftest"])
def test_help_describes_every_flag(command: str) -> None:
    parser = make_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    flags = commands.choices[command]._actions
    assert [flag.option_strings for flag in flags if not flag.help] == []
