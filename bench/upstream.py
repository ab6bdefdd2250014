"""Downloads vLLM's own end-to-end tests of MultiConnector, and runs them unmodified against a deployment of ours.

Only vLLM's source distribution contains the tests. pip downloads one only after building its metadata, so the build
requirements for metadata are installed into a separate folder; torch is the engine's.
"""

import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = ("test_multi_connector_edge_cases.py", "test_edge_cases.py")
"""Run in this order: the second file leaves a prompt in the caches that the first expects to be new."""
TESTS = dict(zip(FILES, (9, 1), strict=True))
"""Number of tests in each file."""
SCRIPT_FLAGS = ("--block-size", "128", "--num-gpu-blocks", "18", "--engine-arg=--max-model-len 2048")
"""Flags of ``serve`` that start the servers as vLLM's own script does: with the script's default model, 256 MiB of KV
are 18 blocks of 128 tokens."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pd-harness"
_FOLDER = "tests/v1/kv_connector/nixl_integration"
_FOR_METADATA = ("setuptools_scm", "setuptools-rust", "setuptools", "cmake", "packaging", "wheel", "jinja2")
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
_PASSED = re.compile(r"(\d+) passed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of running one file."""

    passed: int
    status: int
    """pytest's exit code."""
    seconds: float
    """Duration of the whole process."""
    output: str


def fetch(version: str, cache: Path = CACHE) -> Path:
    """A folder with this version's NIXL tests, downloaded once (45 MB, and 40 MB of tools to unpack it)."""
    folder = cache / f"vllm-{version}-tests"
    if not (folder / FILES[0]).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(_download(version, folder), folder)
        # So pytest does not use the configuration of this project.
        (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def run(file: Path, state: Mapping[str, Any]) -> Outcome:
    """Run one file against the deployment that ``state``, printed by ``serve``, describes."""
    ports = {name: str(state[name.lower()]) for name in ("PREFILL_PORT", "DECODE_PORT", "PROXY_PORT", "BLOCK_SIZE")}
    hosts = dict.fromkeys(("PREFILL_HOST", "DECODE_HOST", "PROXY_HOST"), "127.0.0.1")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:pd_harness", "-p", "no:cacheprovider", file.name],
        cwd=file.parent,
        env=dict(os.environ) | ports | hosts,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    passed = _PASSED.search(done.stdout)
    return Outcome(int(passed[1]) if passed else 0, done.returncode, seconds, done.stdout + done.stderr)


def _download(version: str, folder: Path) -> Path:
    tools = folder / "build"
    _call([*_PIP, "install", "--upgrade", "--target", str(tools), *_FOR_METADATA])
    environment = {"VLLM_VERSION_OVERRIDE": version, "VLLM_TARGET_DEVICE": "empty", "PYTHONPATH": str(tools)}
    wanted = ["--no-deps", "--no-binary", "vllm", "--no-build-isolation", "--dest", str(folder), f"vllm=={version}"]
    _call([*_PIP, "download", *wanted], environment)
    [archive] = folder.glob("vllm-*.tar.gz")
    return archive


def _call(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=dict(os.environ) | dict(environment or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for name in FILES:
            [member] = [one for one in tar.getmembers() if one.name.endswith(f"/{_FOLDER}/{name}")]
            member.name = name
            tar.extract(member, folder, filter="data")
