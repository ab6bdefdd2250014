"""The plugins that run inside vLLM: page copies, the NIXL progress delay, and how vLLM finds them.

Tests that need vLLM, torch or NIXL run only where these are installed. They load the copy of the plugins as an engine
does, from a directory on the path.
"""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.deploy.plugin_path import PACKAGE, PLUGIN_NAMES, write_plugin_path
from harness.engine_plugins import nixl_progress, queue_pause

torch = pytest.importorskip("torch", reason="the engine is not installed: make env")
page_tier = importlib.import_module("harness.engine_plugins.page_tier")


def run_python(code: str, path: Path, **variables: str) -> str:
    """Run ``code`` in a new interpreter with ``path`` on its PYTHONPATH; return its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin", **variables},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestPluginPath:
    def test_an_interpreter_finds_the_entry_point_without_an_installation(self, tmp_path: Path) -> None:
        code = (
            "from importlib.metadata import entry_points\n"
            f"[p] = [p for p in entry_points(group='vllm.general_plugins') if p.name == {PLUGIN_NAMES[0]!r}]\n"
            "print(p.load().__module__, p.load().__module__ and p.load()())"
        )
        assert run_python(code, write_plugin_path(tmp_path)) == f"{PACKAGE}.nixl_progress None\n"

    def test_the_plugins_import_nothing_of_the_harness(self, tmp_path: Path) -> None:
        code = (
            f"import sys, {PACKAGE}.nixl_progress, {PACKAGE}.page_tier\n"
            "print(any(name.split('.')[0] == 'harness' for name in sys.modules))"
        )
        assert run_python(code, write_plugin_path(tmp_path)) == "False\n"

    def test_writing_again_removes_files_that_are_no_longer_plugins(self, tmp_path: Path) -> None:
        stale = write_plugin_path(tmp_path) / PACKAGE / "gone.py"
        stale.write_text("")
        write_plugin_path(tmp_path)
        assert not stale.exists()
        assert (tmp_path / PACKAGE / "cpu_offload.py").exists()


class FakeAgent:
    """Stands for NIXL's compiled agent, and keeps the configuration with which it was made."""

    def __init__(self, name: str, config: Any) -> None:
        self.name, self.config = name, config


def fake_nixl(*, config: type[Any]) -> Any:
    return SimpleNamespace(nixlBind=SimpleNamespace(nixlAgent=FakeAgent, nixlAgentConfig=config))


class Config:
    pthrDelay = 0  # noqa: N815 - NIXL's name


class TestProgressDelay:
    def test_does_nothing_if_the_variable_is_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(nixl_progress.DELAY_VARIABLE, raising=False)
        monkeypatch.setattr(nixl_progress, "_nixl_api", lambda: pytest.fail("looked at NIXL"))
        nixl_progress.register()

    def test_sets_the_delay_of_agents_made_afterwards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        api = fake_nixl(config=Config)
        monkeypatch.setenv(nixl_progress.DELAY_VARIABLE, "500")
        monkeypatch.setattr(nixl_progress, "_nixl_api", lambda: api)
        nixl_progress.register()
        agent = api.nixlBind.nixlAgent("a", Config())
        assert isinstance(agent, FakeAgent)
        assert (agent.name, agent.config.pthrDelay) == ("a", 500)

    def test_registering_again_replaces_the_delay_and_wraps_once(self) -> None:
        api = fake_nixl(config=Config)
        for delay in (500, 900):
            nixl_progress.set_progress_delay(api, delay)
        assert api.nixlBind.nixlAgent("a", Config()).config.pthrDelay == 900
        assert api.nixlBind.nixlAgent.__mro__[1] is FakeAgent

    @pytest.mark.parametrize("api", [ModuleType("nixl._api"), fake_nixl(config=object)])
    def test_raises_if_nixl_makes_agents_differently(self, api: Any) -> None:
        with pytest.raises(RuntimeError, match=nixl_progress.DELAY_VARIABLE):
            nixl_progress.set_progress_delay(api, 500)

    @pytest.mark.parametrize("text", ["", "0", "-5", "0.5", "500us", "²"])
    def test_refuses_a_delay_that_is_no_positive_whole_number(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(nixl_progress.DELAY_VARIABLE, text)
        monkeypatch.setattr(nixl_progress, "_nixl_api", lambda: fake_nixl(config=Config))
        with pytest.raises(RuntimeError, match="microseconds above 0"):
            nixl_progress.register()

    def test_raises_if_nixl_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(nixl_progress.DELAY_VARIABLE, "500")
        monkeypatch.setitem(sys.modules, "nixl._api", None)
        with pytest.raises(RuntimeError, match="cannot be imported"):
            nixl_progress.register()

    def test_the_installed_nixl_hands_the_delay_to_its_agent(self, tmp_path: Path) -> None:
        """Use the real ``nixl_agent`` with a fake of the compiled agent, which keeps its configuration."""
        pytest.importorskip("nixl", reason="the engine is not installed: make env")
        code = (
            "import nixl._api as api\n"
            "class Seen(Exception): pass\n"
            "class Agent:\n"
            "    def __init__(self, name, config): raise Seen(config.pthrDelay)\n"
            "api.nixlBind.nixlAgent = Agent\n"
            f"from {PACKAGE}.nixl_progress import register; register()\n"
            "try: api.nixl_agent('a')\n"
            "except Seen as seen: print('delay', seen)\n"
        )
        printed = run_python(
            code, write_plugin_path(tmp_path), **{nixl_progress.DELAY_VARIABLE: "700", "HOME": str(tmp_path)}
        )
        assert "delay 700\n" in printed


BLOCKS, PAGE, PADDING = 12, 6, 2


def caches(tensors: int = 2) -> list[Any]:
    """Make KV caches in which every byte differs from its neighbours, including the padding."""
    return [
        (torch.arange(BLOCKS * (PAGE + PADDING)) + 7 * index).to(torch.int8).view(BLOCKS, PAGE + PADDING)
        for index in range(tensors)
    ]


def tier_over(tensors: list[Any], *, blocks_per_chunk: int, chunks: int = BLOCKS, groups: Any = None) -> Any:
    pages = [[page_tier.PageRef(index, PAGE) for index in range(len(tensors))]]
    return page_tier.PageTier(tensors, groups or pages, blocks_per_chunk=blocks_per_chunk, chunks=chunks)


def transfer(blocks: list[int], chunks: list[int], *, sizes: list[int], firsts: list[int]) -> Any:
    """Make a transfer from vLLM's two specs of ids, of which the first has sizes and indices per group."""
    return page_tier.Transfer.between(
        SimpleNamespace(block_ids=blocks, group_sizes=sizes, block_indices=firsts), SimpleNamespace(block_ids=chunks)
    )


class TestPageTier:
    @given(data=st.data(), blocks_per_chunk=st.integers(1, 4))
    def test_blocks_come_back_as_they_were_and_no_other_byte_changes(
        self, data: st.DataObject, blocks_per_chunk: int
    ) -> None:
        """Blocks are stored, overwritten, and restored into *other* blocks."""
        first = data.draw(st.integers(0, 9))
        size = data.draw(st.integers(1, BLOCKS))
        source = data.draw(st.permutations(range(BLOCKS)))[:size]
        target = data.draw(st.permutations(range(BLOCKS)))[:size]
        touched = len({(first + index) // blocks_per_chunk for index in range(size)})
        chunks = data.draw(st.permutations(range(BLOCKS)))[:touched]
        tensors = caches()
        tier = tier_over(tensors, blocks_per_chunk=blocks_per_chunk)
        stored_bytes = [tensor.tolist() for tensor in tensors]

        stored = tier.store(transfer(source, chunks, sizes=[size], firsts=[first]))
        for tensor in tensors:
            tensor.fill_(-1)
        loaded = tier.load(transfer(target, chunks, sizes=[size], firsts=[first]))

        for tensor, before in zip(tensors, stored_bytes, strict=True):
            expected = [[-1] * (PAGE + PADDING) for _ in range(BLOCKS)]
            for old, new in zip(source, target, strict=True):
                expected[new][:PAGE] = before[old][:PAGE]
            assert tensor.tolist() == expected
        assert stored.bytes == loaded.bytes == 2 * size * PAGE

    def test_a_part_of_a_chunk_is_loaded_from_its_middle(self) -> None:
        [cache] = tensors = caches(1)
        tier = tier_over(tensors, blocks_per_chunk=2)
        tier.store(transfer([0, 1, 2, 3], [5, 3], sizes=[4], firsts=[0]))
        wanted = cache[1].tolist(), cache[2].tolist()
        tier.load(transfer([8, 9], [5, 3], sizes=[2], firsts=[1]))
        assert (cache[8, :PAGE].tolist(), cache[9, :PAGE].tolist()) == tuple(w[:PAGE] for w in wanted)

    def test_each_group_moves_its_own_layers_only(self) -> None:
        tensors = caches(2)
        groups = [[page_tier.PageRef(0, PAGE)], [page_tier.PageRef(1, PAGE)]]
        tier = tier_over(tensors, blocks_per_chunk=1, groups=groups)
        wanted = tensors[0][4, :PAGE].tolist(), tensors[1][7, :PAGE].tolist()
        moved = tier.store(transfer([4, 7], [0, 1], sizes=[1, 1], firsts=[0, 3]))
        for tensor in tensors:
            tensor.zero_()
        tier.load(transfer([2, 2], [0, 1], sizes=[1, 1], firsts=[0, 3]))
        assert (tensors[0][2, :PAGE].tolist(), tensors[1][2, :PAGE].tolist()) == wanted
        assert moved.bytes == 2 * PAGE

    def test_a_group_without_blocks_takes_no_chunk(self) -> None:
        tensors = caches(2)
        groups = [[page_tier.PageRef(0, PAGE)], [page_tier.PageRef(1, PAGE)]]
        tier = tier_over(tensors, blocks_per_chunk=2, groups=groups)
        assert tier.store(transfer([4], [0], sizes=[0, 1], firsts=[1, 0])).bytes == PAGE

    def test_rows_that_lie_apart_are_copied_where_they_lie(self) -> None:
        storage = torch.arange(BLOCKS * 16).to(torch.int8)
        cache = storage.as_strided((BLOCKS, PAGE), (16, 1), 3)
        tier = tier_over([cache], blocks_per_chunk=1)
        tier.store(transfer([1], [0], sizes=[1], firsts=[0]))
        before = storage.clone()
        tier.load(transfer([5], [0], sizes=[1], firsts=[0]))
        changed = {index for index in range(len(storage)) if storage[index] != before[index]}
        assert changed == set(range(5 * 16 + 3, 5 * 16 + 3 + PAGE))

    @pytest.mark.parametrize(
        ("blocks", "chunks", "sizes"), [([0, 1], [0], [2]), ([0], [0, 1], [1]), ([0, 1], [0], [1]), ([0], [0, 1], [2])]
    )
    def test_a_transfer_that_does_not_fit_moves_nothing(
        self, blocks: list[int], chunks: list[int], sizes: list[int]
    ) -> None:
        [cache] = tensors = caches(1)
        tier = tier_over(tensors, blocks_per_chunk=1)
        before = cache.clone()
        with pytest.raises(ValueError, match="blocks or chunks"):
            tier.load(transfer(blocks, chunks, sizes=sizes, firsts=[0]))
        assert torch.equal(cache, before)

    def test_refuses_a_cache_on_another_device(self) -> None:
        with pytest.raises(ValueError, match="CPUOffloadingSpec"):
            tier_over([torch.empty((BLOCKS, PAGE), dtype=torch.int8, device="meta")], blocks_per_chunk=1)


VLLM_CODE = """
import torch
from vllm.v1.kv_offload.base import CanonicalKVCacheRef, CanonicalKVCaches, CanonicalKVCacheTensor, GPULoadStoreSpec
from vllm.v1.kv_offload.config import (
    OffloadingCacheConfig, OffloadingConfig, OffloadingGroupConfig, OffloadingModelConfig, OffloadingParallelConfig,
)
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec
from vllm.v1.kv_offload.factory import OffloadingSpecFactory

LAYERS, BLOCKS, PAGE = 3, 8, 64

def spec(**extra):
    names = {"spec_name": "HostOffloadingSpec", "spec_module_path": "pd_harness_engine_plugins.cpu_offload"}
    return OffloadingSpecFactory.create_spec(OffloadingConfig(
        groups=(OffloadingGroupConfig(group_id=0, tokens_per_block=32, layer_names=("a", "b", "c")),),
        worker_kv_bytes_per_block=LAYERS * PAGE, enable_kv_cache_events=False, extra_config=names | extra,
        engine_id="e", model=OffloadingModelConfig(name="m", dtype="float32"),
        cache=OffloadingCacheConfig(tokens_per_hash=32, blocks_per_chunk=2),
        parallel=OffloadingParallelConfig(
            rank=0, world_size=1, tp_size=1, pp_size=1, pcp_size=1, dcp_size=1, data_parallel_index=0,
            data_parallel_size=1, data_parallel_rank_local=0, is_parallelism_agnostic=False),
    ))

tensors = [torch.full((BLOCKS, PAGE), layer, dtype=torch.int8) for layer in range(LAYERS)]
for tensor in tensors:
    tensor += torch.arange(BLOCKS, dtype=torch.int8)[:, None] * 10
kv = CanonicalKVCaches(
    [CanonicalKVCacheTensor(t, PAGE) for t in tensors], [[CanonicalKVCacheRef(i, PAGE) for i in range(LAYERS)]])

made = spec(cpu_bytes_to_use=1 << 20)
made.get_manager()
worker = made.get_worker(kv)
assert worker is made.get_worker(kv)
blocks = GPULoadStoreSpec([1, 2, 3], group_sizes=[3], block_indices=[0])
assert worker.submit_store(7, blocks, CPULoadStoreSpec([4, 0]))
for tensor in tensors:
    tensor.zero_()
assert worker.submit_load(8, CPULoadStoreSpec([0]), GPULoadStoreSpec([6], group_sizes=[1], block_indices=[2]))
worker.wait({7, 8})
done = [[r.job_id, r.success, r.transfer_size, r.transfer_time > 0] for r in worker.get_finished()]

refused = []
for extra in ({"cpu_bytes_to_use": 1}, {"cpu_bytes_to_use": 1 << 20, "canonical_layout": True}):
    try:
        spec(**extra).get_worker(kv)
    except ValueError as error:
        refused.append(str(error))

import json
print(json.dumps({
    "done": done, "left": worker.get_finished(), "first_bytes": [t[:, 0].tolist() for t in tensors],
    "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def inside_vllm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Use the interface of the installed vLLM in a separate process, and return the results."""
    # Importing vLLM here would change this process's environment.
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("the engine is not installed: make env")
    plugins = write_plugin_path(tmp_path_factory.mktemp("plugins"))
    return json.loads(run_python(VLLM_CODE, plugins).splitlines()[-1])


@pytest.mark.slow
class TestInsideVllm:
    def test_its_factory_makes_the_spec_whose_worker_stores_and_loads(self, inside_vllm: Any) -> None:
        """Three blocks of three layers with 64-byte pages are stored, and the third is restored into block 6."""
        assert inside_vllm["done"] == [[7, True, 3 * 3 * 64, True], [8, True, 3 * 64, True]]
        assert inside_vllm["left"] == []
        assert inside_vllm["first_bytes"] == [[0, 0, 0, 0, 0, 0, 30 + layer, 0] for layer in range(3)]

    def test_a_tier_that_holds_nothing_is_refused(self, inside_vllm: Any) -> None:
        """Without this error, vLLM would start, store nothing and report nothing."""
        assert inside_vllm["refused"][0].startswith("cpu_bytes_to_use=1 is too small for one chunk of 2 blocks")

    def test_canonical_layout_is_refused(self, inside_vllm: Any) -> None:
        assert "canonical_layout" in inside_vllm["refused"][1]


OLDER_VLLM = {
    "vllm/v1/kv_offload/cpu/spec.py": """
class CPUOffloadingSpec:
    def __init__(self, vllm_config, kv_cache_config):
        self.extra_config, self.num_blocks, self.block_size_factor = {}, 4, 2
class GPULoadStoreSpec:
    medium = staticmethod(lambda: "GPU")
    def __init__(self, block_ids, group_sizes, block_indices):
        self.block_ids, self.group_sizes, self.block_indices = block_ids, group_sizes, block_indices
class CPULoadStoreSpec:
    medium = staticmethod(lambda: "CPU")
    def __init__(self, block_ids):
        self.block_ids = block_ids
""",
    "vllm/v1/kv_offload/worker/worker.py": """
from dataclasses import dataclass
class OffloadingHandler: pass
@dataclass
class TransferResult:
    job_id: int
    success: bool
    transfer_size: int | None = None
    transfer_time: float | None = None
    transfer_type: tuple | None = None
""",
}


def test_an_older_vllm_gets_a_handler_per_direction(tmp_path: Path) -> None:
    """vLLM 0.20.2's interface is faked, since that release cannot be installed beside the present one."""
    for name, text in OLDER_VLLM.items():
        module = tmp_path / name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(text)
    for folder in [tmp_path / "vllm", *(tmp_path / "vllm").rglob("*/")]:
        (folder / "__init__.py").touch()
    code = """
import torch
from types import SimpleNamespace as NS
from pd_harness_engine_plugins.cpu_offload import HostOffloadingSpec
from vllm.v1.kv_offload.cpu.spec import CPULoadStoreSpec, GPULoadStoreSpec
cache = torch.arange(5, dtype=torch.int8)[:, None].repeat(1, 3)
kv = NS(tensors=[NS(tensor=cache, page_size_bytes=3)], group_data_refs=[[NS(tensor_idx=0, page_size_bytes=3)]])
[(a, b, store), (c, d, load)] = HostOffloadingSpec(None, None).get_handlers(kv)
assert (a, b, c, d) == (GPULoadStoreSpec, CPULoadStoreSpec, CPULoadStoreSpec, GPULoadStoreSpec)
assert store.transfer_async(1, (GPULoadStoreSpec([1, 2, 3], [3], [0]), CPULoadStoreSpec([3, 1])))
cache.zero_()
assert load.transfer_async(2, (CPULoadStoreSpec([1]), GPULoadStoreSpec([4], [1], [2])))
for handler in (store, load):
    print([(r.job_id, r.success, r.transfer_size, r.transfer_type) for r in handler.get_finished()])
    handler.wait({1, 2})
print(cache[:, 0].tolist())
"""
    assert run_python(code, write_plugin_path(tmp_path)) == (
        "[(1, True, 9, ('GPU', 'CPU'))]\n[(2, True, 3, ('CPU', 'GPU'))]\n[0, 0, 0, 0, 3]\n"
    )


class TestQueuePause:
    """Waits at vLLM's shared queue sleep if the variable is set."""

    def test_does_nothing_if_the_pause_variable_is_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(queue_pause.PAUSE_VARIABLE, raising=False)
        monkeypatch.setattr(queue_pause.importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
        queue_pause.register()

    def test_a_wait_sleeps_as_long_as_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(queue_pause.time, "sleep", slept.append)
        queue = SimpleNamespace(sched_yield=lambda: pytest.fail("it yielded"))
        queue_pause.sleep_instead_of_yielding(queue, 250)
        queue.sched_yield()
        assert slept == [0.00025]

    @pytest.mark.parametrize("text", ["0", "-1", "fast", ""])
    def test_refuses_a_pause_that_is_no_positive_number(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv(queue_pause.PAUSE_VARIABLE, text)
        with pytest.raises(RuntimeError, match="microseconds"):
            queue_pause.register()

    def test_without_sched_yield_there_is_a_warning_but_no_error(self, caplog: pytest.LogCaptureFixture) -> None:
        queue_pause.sleep_instead_of_yielding(SimpleNamespace(), 200)
        assert "no sched_yield" in caplog.text

    def test_the_installed_vllm_calls_sched_yield(self) -> None:
        spec = importlib.util.find_spec("vllm")
        if spec is None or spec.origin is None:
            pytest.skip("no engine is installed")
        source = Path(spec.origin).parent / "distributed" / "device_communicators" / "shm_broadcast.py"
        assert re.search(r"^\s+sched_yield\(\)$", source.read_text(), re.MULTILINE)
