"""The pytest plugin on a simulated pair, in a separate pytest process, as users run it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.models import make_canary, read_model
from harness.proxy import start_proxy
from harness.sim import QUIET, PlantedBug, SimConfig, start_sim

THE_USERS_OWN = """
def test_multi_block(run_workload):
    run_workload("multi_block")

def test_it_again(run_workload):
    run_workload("multi_block")

def test_two_by_two(run_workload):
    run_workload("two_by_two")

def test_facts(deployment):
    assert [server.block_size for server in deployment.facts.servers] == [16, 16]
"""


@asynccontextmanager
async def simulated(*bugs: str) -> AsyncIterator[list[tuple[str, str]]]:
    """Names and URLs for flags of the plugin that attach to a simulated pair."""
    geometry = read_model(str(make_canary())).geometry
    planted = tuple(PlantedBug(bug) for bug in bugs)
    sim = await start_sim(SimConfig(noise=QUIET, eos_rate=0.0, geometry=geometry, bugs=planted, lease_seconds=1.0))
    proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)
    try:
        yield [("base", proxy.url), ("prefill", sim.prefill_urls[0]), ("decode", sim.decode_urls[0])]
    finally:
        await proxy.stop()
        await sim.stop()


async def pytest_on(directory: Path, arguments: Sequence[str], environment: dict[str, str] | None = None) -> str:
    (directory / "test_mine.py").write_text(THE_USERS_OWN)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "harness.pytest_plugin", "-p", "no:cacheprovider", "-rA"),
        *(
            str(directory),
            f"--rootdir={directory}",
            "--pd-args",
            f"--model {make_canary()} --kv-cache-dtype float32",
            *arguments,
        ),
        # Whether or not the plugin is installed with an entry point, it is loaded once, by name.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
    )
    output, _ = await process.communicate()
    return output.decode()


def by_options(urls: list[tuple[str, str]]) -> list[str]:
    return [f"--pd-{name}-url={url}" for name, url in urls]


def by_environment(urls: list[tuple[str, str]]) -> dict[str, str]:
    names = {"base": "PROXY_PORT", "prefill": "PREFILL_PORT", "decode": "DECODE_PORT"}
    return {names[name]: url.rpartition(":")[2] for name, url in urls}


async def test_a_valid_workload_passes_and_a_workload_that_cannot_run_is_skipped(tmp_path: Path) -> None:
    async with simulated() as urls:
        output = await pytest_on(tmp_path, by_options(urls))
    assert "3 passed, 1 skipped" in output, output
    assert "needs 2 prefill servers, and there are 1" in output


@pytest.mark.slow
async def test_a_lost_transfer_fails_with_expected_and_observed(tmp_path: Path) -> None:
    async with simulated("dropped_params") as urls:
        output = await pytest_on(tmp_path, ["-k", "test_multi_block"], by_environment(urls))
    assert "1 failed" in output, output
    assert "decode-0 external_kv_transfer: expected 64, observed 0 (-64)" in output


@pytest.mark.slow
async def test_a_block_size_other_than_the_servers_is_an_error(tmp_path: Path) -> None:
    async with simulated() as urls:
        output = await pytest_on(tmp_path, ["-k", "test_facts", *by_options(urls)], {"BLOCK_SIZE": "32"})
    assert "BLOCK_SIZE is 32, but prefill-0 at" in output, output


async def test_the_plugin_imports_nothing_until_it_is_used(tmp_path: Path) -> None:
    code = "import sys, harness.pytest_plugin; print(sorted(m for m in sys.modules if m.split('.')[0] in HEAVY))"
    heavy = "{'aiohttp', 'numpy', 'rich', 'uvloop', 'prometheus_client', 'workloads'}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code.replace("HEAVY", heavy)), stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    output, _ = await process.communicate()
    assert output.decode().strip() == "[]"
