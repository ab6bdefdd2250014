"""The plugin that damages KV on real vLLM (bench/damage_plugin) damages the intended KV, and nothing else.

The plugin's layout of the KV cache is compared with vLLM's own kernel, and the effect of each kind of damage with a
dictionary of token rows.
"""

import importlib
import importlib.util
import json
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine is not installed: make env")

PLUGIN = Path(__file__).parents[2] / "bench" / "damage_plugin"
sys.path.append(str(PLUGIN))
kinds, orders, pages_module, plugin, prompt_module = (
    importlib.import_module(f"pd_damage.{name}") for name in ("kinds", "orders", "pages", "plugin", "prompt")
)

BLOCKS, HEADS, BLOCK, HEAD_SIZE, LAYERS = 12, 2, 32, 64, 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: for small tensors, waiting threads cost more than they gain, up to a hundredfold if busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kernel() -> Any:
    """Load vLLM's operation that writes K and V into the cache, without importing vLLM, which takes seconds."""
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the engine is not installed: make env")
    library = Path(found.submodule_search_locations[0]) / "_C_AVX2.abi3.so"
    if not library.exists():
        pytest.skip(f"this build of vLLM has no {library.name}")
    torch.ops.load_library(str(library))
    return torch.ops._C.cpu_attn_reshape_and_cache


def cache(layers: int = LAYERS) -> Any:
    """Make pages in which every float is different."""
    size = BLOCKS * HEADS * BLOCK * 2 * HEAD_SIZE
    return pages_module.Pages(
        [
            (torch.arange(size, dtype=torch.float32) + 1 + layer * size).view(BLOCKS, HEADS, BLOCK, 2 * HEAD_SIZE)
            for layer in range(layers)
        ],
        BLOCK,
        cpu_kernels=True,
    )


def rows(pages: Any, block: int) -> list[Any]:
    """Return each token's K and V in all layers."""
    parts = [half(layer, block) for layer in range(pages.layers) for half in (pages.keys, pages.values)]
    return list(torch.stack(parts).permute(2, 0, 1, 3).contiguous().unbind())  # (tokens, parts, heads, head size)


def everything(pages: Any) -> dict[tuple[int, int], Any]:
    return {(block, token): row for block in range(BLOCKS) for token, row in enumerate(rows(pages, block))}


def changed(before: dict[tuple[int, int], Any], pages: Any) -> set[tuple[int, int]]:
    """Return (block, token) of every row that has changed."""
    return {place for place, row in everything(pages).items() if not torch.equal(row, before[place])}


def prompt(tokens: int, blocks: tuple[int, ...], request: str = "load-00001") -> Any:
    return prompt_module.Prompt(request, blocks, tokens, BLOCK)


def intact() -> tuple[Any, Any, dict[tuple[int, int], Any]]:
    """Make pages, a prompt of 70 tokens in blocks 4, 9 and 2, and a copy of all rows."""
    pages = cache()
    return pages, prompt(70, (4, 9, 2)), everything(pages)


def rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - to be repeatable


def scene(pages: Any, of: Any, **more: Any) -> Any:
    return kinds.Scene(pages, of, rng(5), **more)


def test_keys_and_values_are_where_the_engines_own_kernel_puts_them() -> None:
    write = kernel()
    layer = torch.zeros(BLOCKS, HEADS, BLOCK, 2 * HEAD_SIZE)
    key_cache, value_cache = layer.view(BLOCKS, HEADS, 2 * BLOCK, HEAD_SIZE).chunk(2, dim=2)
    tokens = 3 * BLOCK + 5
    key = torch.randn(tokens, HEADS, HEAD_SIZE)
    value = torch.randn(tokens, HEADS, HEAD_SIZE)
    slots = torch.randperm(BLOCKS * BLOCK)[:tokens]
    write(key, value, key_cache, value_cache, slots, "vec", 1.0, 1.0, "auto")

    pages = pages_module.Pages([layer], BLOCK, cpu_kernels=True)
    for token, slot in enumerate(slots.tolist()):
        block, row = divmod(slot, BLOCK)
        assert torch.equal(pages.keys(0, block)[:, row], key[token])
        assert torch.equal(pages.values(0, block)[:, row], value[token])


def test_layers_come_in_the_models_order() -> None:
    names = [f"model.layers.{number}.self_attn.attn" for number in (10, 2, 1)]
    caches = {name: torch.full((1, 1, 32, 64), float(index)) for index, name in enumerate(names)}
    pages = pages_module.Pages.of_worker(SimpleNamespace(device_kv_caches=caches, block_size=32))
    assert [pages.keys(layer, 0)[0, 0, 0].item() for layer in range(3)] == [2.0, 1.0, 0.0]


def plain(blocks: int, heads: int, tokens: int, head_size: int) -> tuple[Any, Any]:
    """Make K and V of shape (blocks, heads, tokens, head size), all numbers different."""
    numbers = torch.arange(2 * blocks * heads * tokens * head_size, dtype=torch.float32)
    keys, values = numbers.view(2, blocks, heads, tokens, head_size).unbind(0)
    return keys, values


LAYOUTS = {
    "packed": lambda keys, values: torch.cat([keys, values], dim=-1),
    # As FlashAttention has it with VLLM_KV_CACHE_LAYOUT=NHD: the same axes, tokens before heads in memory.
    "packed, NHD in memory": lambda keys, values: (
        torch.cat([keys, values], dim=-1).transpose(1, 2).contiguous().transpose(1, 2)
    ),
    "packed, NHD": lambda keys, values: torch.cat([keys, values], dim=-1).transpose(1, 2).contiguous(),
    "K and V first, NHD": lambda keys, values: torch.stack([keys, values]).transpose(2, 3).contiguous(),
    "K and V first, HND": lambda keys, values: torch.stack([keys, values]),
    "blocks first, NHD": lambda keys, values: torch.stack([keys, values], dim=1).transpose(2, 3).contiguous(),
    "blocks first, HND": lambda keys, values: torch.stack([keys, values], dim=1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
class TestLayoutsOfGpus:
    """Blocks of 16 tokens, and 3 heads as in SmolLM2-135M."""

    def pages(self, layout: str, blocks: int = 5) -> tuple[Any, Any, Any, Any]:
        keys, values = plain(blocks, 3, 16, 8)
        layer = LAYOUTS[layout](keys, values)
        return pages_module.Pages([layer], 16, cpu_kernels=False), layer, keys, values

    def test_keys_and_values_are_found(self, layout: str) -> None:
        pages, _, keys, values = self.pages(layout)
        assert torch.equal(torch.stack([pages.keys(0, block) for block in range(5)]), keys)
        assert torch.equal(torch.stack([pages.values(0, block) for block in range(5)]), values)

    def test_what_is_written_is_in_the_engines_own_tensor(self, layout: str) -> None:
        pages, layer, keys, values = self.pages(layout)
        pages.write([4, 0], pages.copy([1, 2]))
        keys, values = keys[[2, 1, 2, 3, 1]], values[[2, 1, 2, 3, 1]]
        assert torch.equal(layer, LAYOUTS[layout](keys, values))
        pages.zero([3], [0])
        keys[3] = values[3] = 0
        assert torch.equal(layer, LAYOUTS[layout](keys, values))

    def test_every_kind_of_damage_stays_within_the_prompts_blocks(self, layout: str) -> None:
        of = prompt_module.Prompt("load-00001", (3, 1), 30, 16)
        for name, kind in kinds.KINDS.items():
            pages, layer, keys, values = self.pages(layout)
            other = kinds.Kept(prompt_module.Prompt("load-00002", (0, 2), 31, 16), pages.copy([0, 2]))
            assert kind(kinds.Scene(pages, of, rng(1), pages.copy([2, 4]), [other])) or name == "swap"
            untouched = LAYOUTS[layout](*(half[[0, 2, 4]] for half in (keys, values)))
            now = LAYOUTS[layout](*(torch.stack([half(0, block) for block in (0, 2, 4)]) for half in halves(pages)))
            assert torch.equal(now, untouched), name
            assert name == "swap" or not torch.equal(layer, LAYOUTS[layout](keys, values)), name


def halves(pages: Any) -> tuple[Any, Any]:
    return pages.keys, pages.values


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((4, 2, 16, 64), torch.uint8), ((4, 16, 576), torch.bfloat16), ((3, 4, 16, 2, 32), torch.bfloat16)],
    ids=["fp8", "latent", "five axes without K and V"],
)
def test_another_layout_or_type_of_the_cache_is_refused(shape: tuple[int, ...], kind: Any) -> None:
    with pytest.raises(RuntimeError, match="in the layouts that"):
        pages_module.Pages([torch.zeros(shape, dtype=kind)], 16, cpu_kernels=False)


@pytest.mark.parametrize(("kind", "bits"), [("flip", {0x8000, 0x4000, 0x2000}), ("flip_byte", {0xFF00})])
def test_bits_of_bfloat16_are_flipped(kind: str, bits: set[int]) -> None:
    found = set()
    for seed in range(12):
        layer = torch.full((2, 1, 16, 16), 0.75, dtype=torch.bfloat16)
        pages = pages_module.Pages([layer], 16, cpu_kernels=False)
        assert kinds.KINDS[kind](kinds.Scene(pages, prompt_module.Prompt("load-00001", (1,), 16, 16), rng(seed)))
        now = layer.view(torch.int16).flatten()
        [changed_to] = now[now != torch.tensor(0.75, dtype=torch.bfloat16).view(torch.int16)].tolist()
        found.add((changed_to ^ 0x3F40) & 0xFFFF)
    assert found == bits


@pytest.mark.parametrize(
    ("engine_id", "client"),
    [
        ("cmpl-load-00007-0-1f2e3d4c", "load-00007"),
        ("chatcmpl-load-00007-1f2e3d4c", "load-00007"),
        ("cmpl-warm-up-5d1c-aa-0-00000000", "warm-up-5d1c-aa"),
        ("other", "other"),
    ],
)
def test_the_clients_request_id_is_found_in_the_engines(engine_id: str, client: str) -> None:
    assert prompt_module.client_id(engine_id) == client


class TestPrompt:
    def test_the_last_tokens_transferred_kv_is_not_read(self) -> None:
        assert [prompt(70, (4, 5, 6)).read_tokens(index) for index in range(3)] == [32, 32, 5]
        assert prompt(65, (4, 5, 6)).read_blocks() == [0, 1]
        assert prompt(64, (4, 5)).whole_blocks() == [0]
        assert prompt(1, (4,)).read_blocks() == []

    def test_blocks_that_the_decode_server_had_cached_are_skipped(self) -> None:
        part = prompt(70, (6,))
        assert part.skipped == 2
        assert part.read_tokens(0) == 5


class TestFlips:
    @pytest.mark.parametrize(
        ("kind", "masks"),
        [("flip_byte", {0xFF000000}), ("flip", {1 << 31, 1 << 30, 1 << 29}), ("flip_lowest_bit", {1})],
    )
    def test_one_float_of_one_token_that_is_read(self, kind: str, masks: set[int]) -> None:
        for seed in range(8):
            pages, one, before = intact()
            done = kinds.KINDS[kind](kinds.Scene(pages, one, rng(seed)))
            [(block, token)] = changed(before, pages)
            assert done["blocks"] == [one.blocks.index(block)]
            assert token < one.read_tokens(done["blocks"][0])
            [(was, now)] = [
                (was, now)
                for was, now in zip(
                    before[block, token].flatten().tolist(), rows(pages, block)[token].flatten().tolist(), strict=True
                )
                if was != now
            ]
            assert (was, now) == (done["was"], done["now"])
            [bits_was], [bits_now] = (struct.unpack("<I", struct.pack("<f", value)) for value in (was, now))
            assert bits_was ^ bits_now in masks

    def test_nothing_to_flip_in_a_prompt_of_one_token(self) -> None:
        assert kinds.flip_byte(scene(cache(), prompt(1, (4,)))) is None


class TestWholeBlocks:
    def test_swapping_the_tail_exchanges_it_with_a_whole_block(self) -> None:
        pages, one, before = intact()
        done = kinds.swap_tail(scene(pages, one))
        whole, tail = (one.blocks[index] for index in done["blocks"])
        assert tail == 2
        assert changed(before, pages) == {(block, token) for block in (whole, tail) for token in range(BLOCK)}
        assert all(torch.equal(row, before[tail, token]) for token, row in enumerate(rows(pages, whole)))
        assert all(torch.equal(row, before[whole, token]) for token, row in enumerate(rows(pages, tail)))

    @pytest.mark.parametrize(("tokens", "blocks"), [(64, (4, 9)), (31, (4,))])
    def test_without_a_partial_block_there_is_no_swap(self, tokens: int, blocks: tuple[int, ...]) -> None:
        assert kinds.swap_tail(scene(cache(), prompt(tokens, blocks))) is None

    def test_only_blocks_that_are_read_whole_are_swapped(self) -> None:
        """Of 96 tokens, D computes the last again, in the third block; swapping that block would show at once."""
        for seed in range(8):
            pages = cache()
            done = kinds.swap(kinds.Scene(pages, prompt(96, (4, 9, 2)), rng(seed)))
            assert done["blocks"] == [0, 1]
        assert kinds.swap(scene(cache(), prompt(64, (4, 9)))) is None

    def test_dropping_the_last_block_makes_it_zero(self) -> None:
        pages = cache()
        before = everything(pages)
        assert kinds.zero_last(scene(pages, prompt(70, (4, 9, 2))))["blocks"] == [2]
        assert changed(before, pages) == {(2, token) for token in range(BLOCK)}
        assert all(not row.any() for row in rows(pages, 2))

    def test_a_last_block_of_which_nothing_is_read_is_not_dropped(self) -> None:
        assert kinds.zero_last(scene(cache(), prompt(65, (4, 9, 2)))) is None

    def test_a_stale_block_is_what_was_there_before_the_transfer(self) -> None:
        pages, one = cache(), prompt(70, (4, 9, 2))
        before = pages.copy([7, 8, 10])
        wanted = [rows(pages, block) for block in (7, 8, 10)]
        [index] = kinds.unwritten(scene(pages, one, before=before))["blocks"]
        assert all(torch.equal(a, b) for a, b in zip(rows(pages, one.blocks[index]), wanted[index], strict=True))

    def test_a_stale_block_that_held_the_same_is_no_damage(self) -> None:
        pages, one = cache(), prompt(70, (4, 9, 2))
        assert kinds.unwritten(scene(pages, one, before=pages.copy(one.blocks))) is None
        assert kinds.unwritten(scene(pages, one)) is None


class TestForeign:
    def kept(self, pages: Any, tokens: int, blocks: tuple[int, ...], request: str = "load-00002") -> Any:
        return kinds.Kept(prompt(tokens, blocks, request), pages.copy(blocks))

    @pytest.mark.parametrize(("kind", "count"), [("stale", 1), ("foreign", 2), ("foreign_prompt", 3)])
    def test_the_owners_blocks_from_the_same_places(self, kind: str, count: int) -> None:
        pages, one = cache(), prompt(70, (4, 9, 2))
        done = kinds.KINDS[kind](scene(pages, one, others=[self.kept(pages, 100, (0, 1, 3, 5))]))
        assert (done["owner"], done["owner_tokens"], len(done["blocks"])) == ("load-00002", 100, count)
        for index in done["blocks"]:
            theirs = rows(pages, (0, 1, 3)[index])
            assert all(torch.equal(a, b) for a, b in zip(rows(pages, one.blocks[index]), theirs, strict=True))

    def test_kv_of_a_shorter_prompt_or_the_same_request_is_not_used(self) -> None:
        pages, one = cache(), prompt(70, (4, 9, 2))
        others = [self.kept(pages, 69, (0, 1, 3)), self.kept(pages, 100, (0, 1, 3, 5), one.request)]
        assert kinds.foreign_prompt(scene(pages, one, others=others)) is None


class TestLayersAndScale:
    def test_one_layer_of_every_block_is_zero(self) -> None:
        pages, one, before = intact()
        layer = kinds.layer(scene(pages, one))["layer"]
        for block in one.blocks:
            assert not pages.keys(layer, block).any()
            assert not pages.values(layer, block).any()
        for (block, token), row in before.items():
            now = rows(pages, block)[token]
            others = [part for part in range(2 * LAYERS) if block not in one.blocks or part // 2 != layer]
            assert torch.equal(now[others], row[others])

    @pytest.mark.parametrize(("kind", "step"), [("scale", 1), ("scale_keys", 2)])
    def test_numbers_grow_by_one_in_a_hundred(self, kind: str, step: int) -> None:
        pages, one, before = intact()
        kinds.KINDS[kind](scene(pages, one))
        for (block, token), row in before.items():
            expected = row.clone()
            if block in one.blocks:
                expected[::step] = (expected[::step].double() * 1.01).float()
            assert torch.allclose(rows(pages, block)[token], expected, rtol=1e-6)

    def test_noise_is_a_hundredth_of_the_spread_and_repeatable(self) -> None:
        pages, one, before = intact()
        kinds.noise(scene(pages, one))
        for part in range(2 * LAYERS):
            was = torch.stack([before[block, token][part] for block in one.blocks for token in range(BLOCK)]).double()
            now = torch.stack([rows(pages, block)[token][part] for block in one.blocks for token in range(BLOCK)])
            added = now.double() - was
            assert 0.9 < (added.std() / (0.01 * was.std())).item() < 1.1
            assert abs(added.mean().item()) < 0.05 * added.std().item()
        again, one, _ = intact()
        kinds.noise(scene(again, one))
        assert all(torch.equal(a, b) for a, b in zip(rows(again, 9), rows(pages, 9), strict=True))
        assert changed(before, pages) <= {(block, token) for block in one.blocks for token in range(BLOCK)}

    def test_shifted_rows_are_those_of_the_token_before(self) -> None:
        pages, one, before = intact()
        kinds.shift(scene(pages, one))
        places = [(block, token) for block in one.blocks for token in range(BLOCK)]
        for place, source in zip(places, [places[0], *places], strict=False):
            assert torch.equal(rows(pages, place[0])[place[1]], before[source])
        assert changed(before, pages) == set(places[1:])

    def test_a_shift_that_moves_only_what_is_computed_again_is_no_damage(self) -> None:
        assert kinds.shift(scene(cache(), prompt(2, (4,)))) is None
        assert kinds.shift(scene(cache(), prompt(3, (4,)))) is not None


class TestOrders:
    def test_unknown_kinds_are_refused(self) -> None:
        with pytest.raises(ValueError, match="scale_keys"):
            orders.Orders(("flip_byte", "scald"), 50, 1)

    @pytest.mark.parametrize("seed", range(5))
    def test_one_request_in_each_fifty_is_struck(self, seed: int) -> None:
        turns = orders.Turns(orders.Orders(("flip_byte",), 50, seed))
        struck = []
        for passed in range(200):
            if turns.next():
                struck.append(passed)
                turns.done()
        assert [passed // 50 for passed in struck] == [0, 1, 2, 3]

    def test_kinds_take_turns(self) -> None:
        turns = orders.Turns(orders.Orders(("flip_byte", "swap_tail"), 1, 3))
        taken = []
        for _ in range(3):
            taken.append(turns.next())
            turns.done()
        assert taken == ["flip_byte", "swap_tail", "flip_byte"]

    def test_a_turn_that_could_not_be_used_goes_to_the_next(self) -> None:
        turns = orders.Turns(orders.Orders(("flip_byte",), 10, 3))
        first = next(passed for passed in range(10) if turns.next())
        assert turns.next(), first


def test_the_hook_runs_when_the_engine_imports_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stand_in.py").write_text("class NixlPullConnectorWorker:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    hooked: list[str] = []
    sys.meta_path.insert(0, plugin._Doorman("stand_in", lambda module: hooked.append(module.__name__)))
    assert hooked == []
    importlib.import_module("stand_in")
    assert hooked == ["stand_in"]


class FakeWorker:
    """The parts of vLLM's NIXL worker that the hooks use; reads end when ``get_finished`` is called."""

    block_size = BLOCK

    def __init__(self, fails: frozenset[str] = frozenset()) -> None:
        self.device_kv_caches = {"layers.0": torch.zeros(BLOCKS, HEADS, BLOCK, 2 * HEAD_SIZE)}
        self._recving_metadata: dict[str, Any] = {}
        self._fails = fails

    def start(self, engine_id: str, tokens: int, blocks: list[int]) -> None:
        remote = SimpleNamespace(num_tokens=tokens)
        meta = SimpleNamespace(local_physical_block_ids=[blocks], remote=remote)
        self._recving_metadata[engine_id] = meta
        self._read_blocks_for_req(engine_id, meta)

    def _read_blocks_for_req(self, engine_id: str, meta: Any) -> None:
        """Carry out the read, which sets every float to 1."""
        del engine_id
        self.device_kv_caches["layers.0"][meta.local_physical_block_ids[0]] = 1.0

    def _ended(self) -> set[str]:
        done, self._recving_metadata = set(self._recving_metadata), {}
        return done


class WorkerOf032(FakeWorker):
    def get_transfer_results(self) -> Any:
        done = self._ended()
        return SimpleNamespace(finished_sending=set(), finished_recving=done, failed_recving=done & self._fails)

    def get_finished(self) -> tuple[set[str], set[str]]:
        results = self.get_transfer_results()
        return results.finished_sending, results.finished_recving


class WorkerOf026(FakeWorker):
    def _handle_failed_transfer(self, engine_id: str, handle: int | None) -> None:
        """Note the failure."""

    def get_finished(self) -> tuple[set[str], set[str]]:
        for engine_id in self._fails & self._recving_metadata.keys():
            self._handle_failed_transfer(engine_id, None)
        return set(), self._ended()


@pytest.mark.parametrize("release", [WorkerOf026, WorkerOf032])
class TestHooks:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        return tmp_path / "orders.json", tmp_path / "ledger.jsonl"

    def hooked(self, files: tuple[Path, Path], release: type[Any]) -> type[Any]:
        worker_class = type("Hooked", (release,), {})
        plugin.hook(worker_class, *files)
        return worker_class

    def ledger(self, files: tuple[Path, Path]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in files[1].read_text().splitlines()] if files[1].exists() else []

    def test_without_orders_nothing_is_damaged(self, files: tuple[Path, Path], release: type[Any]) -> None:
        worker = self.hooked(files, release)()
        worker.start("cmpl-load-00001-0-00000001", 70, [4, 9, 2])
        worker.get_finished()
        assert worker.device_kv_caches["layers.0"][[4, 9, 2]].eq(1.0).all()
        assert self.ledger(files) == []

    def test_orders_are_read_again_and_every_damage_is_in_the_ledger(
        self, files: tuple[Path, Path], release: type[Any]
    ) -> None:
        worker = self.hooked(files, release)()
        for kind, block in (("zero_last", 2), ("unwritten", 5)):
            files[0].write_text(json.dumps({"kinds": [kind], "one_in": 1, "seed": 1, "only": "load-[0-9]+"}))
            for name in ("load-00001", "warm-up-7"):
                worker.start(f"cmpl-{name}-0-00000001", 20, [block])
                worker.get_finished()
                intact = worker.device_kv_caches["layers.0"][block].eq(1.0).all()
                assert intact == (name == "warm-up-7")
        assert [(line["request"], line["kind"], line["blocks"]) for line in self.ledger(files)] == [
            ("load-00001", "zero_last", [0]),
            ("load-00001", "unwritten", [0]),
        ]

    def test_kv_of_a_failed_read_is_not_damaged(self, files: tuple[Path, Path], release: type[Any]) -> None:
        engine_id = "cmpl-load-00001-0-00000001"
        worker = self.hooked(files, release)(frozenset({engine_id}))
        files[0].write_text(json.dumps({"kinds": ["zero_last"], "one_in": 1, "seed": 1}))
        worker.start(engine_id, 20, [3])
        worker.get_finished()
        assert self.ledger(files) == []

    def test_another_requests_kv_is_kept_as_it_was_read(self, files: tuple[Path, Path], release: type[Any]) -> None:
        worker = self.hooked(files, release)()
        files[0].write_text(json.dumps({"kinds": ["foreign_prompt"], "one_in": 1, "seed": 1}))
        for number, value in ((1, 1.0), (2, 7.0)):
            worker.start(f"cmpl-load-0000{number}-0-00000001", 20, [number])
            worker.device_kv_caches["layers.0"][number] = value
            worker.get_finished()
        assert [(line["request"], line["owner"]) for line in self.ledger(files)] == [("load-00002", "load-00001")]
        assert worker.device_kv_caches["layers.0"][2].eq(1.0).all()


@pytest.mark.parametrize("more", [{}, {"local_num_computed_blocks": (0,)}], ids=["0.26", "0.32"])
def test_the_number_of_a_prompts_tokens_is_kept_where_the_engine_does_not(more: dict[str, Any]) -> None:
    class Metadata:
        def __init__(self) -> None:
            self.reqs_to_recv: dict[str, Any] = {}

        def add_new_req_to_recv(
            self, request_id: str, local_block_ids: Any, kv_transfer_params: Any, **rest: Any
        ) -> None:
            assert (local_block_ids, kv_transfer_params, rest) == (([1],), {"remote_num_tokens": 33}, more)
            self.reqs_to_recv[request_id] = SimpleNamespace(remote=SimpleNamespace())

    plugin.keep_token_counts(Metadata)
    metadata = Metadata()
    params = {"remote_num_tokens": 33}
    metadata.add_new_req_to_recv(request_id="one", local_block_ids=([1],), kv_transfer_params=params, **more)
    assert metadata.reqs_to_recv["one"].remote.num_tokens == 33


def test_an_interpreter_finds_the_entry_point_which_imports_no_engine() -> None:
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "[p] = [p for p in entry_points(group='vllm.general_plugins') if p.name == 'pd_damage']\n"
        "print(p.load()(), 'vllm' in sys.modules, 'harness' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(PLUGIN), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "None False False\n", done.stderr
