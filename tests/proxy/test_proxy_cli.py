"""``python -m harness.proxy`` as a process."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

P_AND_D = ["--prefill", "http://127.0.0.1:1", "--decode", "127.0.0.1:2"]
COMMAND = [sys.executable, "-m", "harness.proxy"]


@contextmanager
def proxy(*args: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_proxy_prints_when_it_is_ready_and_ends_on_a_signal(number: int) -> None:
    with proxy(*P_AND_D, "--port", "0") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("proxy ready on http://127.0.0.1:")
        assert "http://127.0.0.1:1" in line
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, *P_AND_D, "--port", str(port)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: Port {port} on 127.0.0.1 is in use. Stop the process that uses it, or choose another port with --port."
    ]


def test_the_proxy_warns_if_other_machines_can_reach_it() -> None:
    with proxy(*P_AND_D, "--port", "0", "--host", "0.0.0.0") as process:  # noqa: S104 - the warning is about this
        assert process.stderr is not None
        assert "warning: listening on 0.0.0.0" in process.stderr.readline()


def test_the_flags_of_vllms_toy_proxy_are_accepted() -> None:
    flags = ["--prefiller-hosts", "a", "b", "--prefiller-ports", "1", "2", "--decoder-host", "c", "--decoder-port", "3"]
    with proxy(*flags, "--port", "0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("(prefill http://a:1, http://b:2; decode http://c:3)\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "at least one prefill server"),
        (["--prefiller-hosts", "a", "b", "--prefiller-ports", "1"], "as many of each"),
        ([*P_AND_D, "--host", "no.such.host.invalid"], "Cannot listen on no.such.host.invalid"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(flags: list[str], message: str) -> None:
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
