"""Turning expositions into counters, and comparing two readings."""

from pathlib import Path

import counted_run as run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history import Sample, Scraped
from harness.observe.counters import COUNTED, SAMPLE_NAMES, Counters, read_counters
from harness.observe.exposition import parse
from harness.observe.growth import delta, total

DATA = Path(__file__).parents[1] / "data"


def read(text: str) -> Counters:
    exposition = parse(text, SAMPLE_NAMES)
    return read_counters(Scraped(0.0, "s", "before", "c", "p", exposition.samples, declared=exposition.declared))


def test_every_counter_of_a_real_decode_server_is_read() -> None:
    counters = read((DATA / "metrics_decode.txt").read_text())
    missing = {name for name in COUNTED if getattr(counters, name) is None}
    assert not missing
    assert counters.local_compute + counters.local_cache_hit + counters.external_kv_transfer == counters.prompt_tokens
    assert counters.offload_load_bytes == counters.offload_load_bytes_legacy
    assert counters.process_start > 1e9


def test_few_samples_of_a_real_exposition_are_kept() -> None:
    text = (DATA / "metrics_prefill.txt").read_text()
    assert len(parse(text, SAMPLE_NAMES).samples) < 40 < text.count("\n")


def test_a_declared_family_without_samples_is_zero_and_an_undeclared_one_unknown() -> None:
    counters = read("# TYPE vllm:kv_offload_allocation_failure_total counter\nvllm:prompt_tokens_total 3\n")
    assert (counters.offload_refused, counters.prompt_tokens, counters.nixl_bytes) == (0, 3, None)


def test_the_older_offload_family_is_read_if_the_newer_is_missing() -> None:
    counters = read(run.text({"load_legacy": 0, "store_legacy": 640}))
    assert (counters.offload_load_bytes, counters.offload_store_bytes) == (0, 640)


def test_the_newer_offload_family_may_appear_with_its_first_event() -> None:
    before, after = (
        run.text({"store_legacy": 0, "started": 1}),
        run.text({"store_legacy": 640, "store": 640, "started": 1}),
    )
    assert delta(read(before), read(after)).of("offload_store_bytes") == 640


def test_a_prefix_before_vllm_does_not_matter() -> None:
    assert read(run.text(run.DECODE, prefix="kserve_")) == read(run.text(run.DECODE))


def test_a_text_that_is_no_exposition_raises() -> None:
    with pytest.raises(ValueError, match=r"."):
        parse("vllm:prompt_tokens_total{ 3 4 5 x\n", SAMPLE_NAMES)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=8))
def test_label_sets_are_summed(values: list[int]) -> None:
    lines = "".join(f'vllm:prompt_tokens_total{{engine="{i}"}} {v}\n' for i, v in enumerate(values))
    assert read(lines).prompt_tokens == sum(values)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), min_size=1, max_size=6))
def test_growth_over_label_sets_is_the_sum_of_their_growths(engines: list[tuple[int, int]]) -> None:
    def scraped(values: list[int]) -> Counters:
        samples = tuple(Sample("vllm:prompt_tokens_total", {"engine": str(i)}, v) for i, v in enumerate(values))
        return read_counters(Scraped(0.0, "s", "before", "c", "p", samples))

    grown = delta(scraped([start for start, _ in engines]), scraped([s + by for s, by in engines]))
    assert grown.of("prompt_tokens") == sum(by for _, by in engines)


def test_the_growth_of_a_counter_that_went_backwards_is_unknown() -> None:
    grown = delta(read(run.text({"prompt": 5, "started": 1})), read(run.text({"prompt": 4, "started": 1})))
    assert grown.of("prompt_tokens") is None
    assert "backwards, from 5 to 4" in grown.why("prompt_tokens")


def test_after_a_restart_all_growth_is_unknown() -> None:
    grown = delta(read(run.text({"prompt": 5, "started": 1})), read(run.text({"prompt": 6, "started": 2})))
    assert {grown.of(name) for name in COUNTED} == {None}
    assert "restarted" in grown.why("prompt_tokens")


def test_the_growth_of_a_family_that_was_not_exposed_before_is_unknown() -> None:
    grown = delta(read(run.text({"started": 1})), read(run.text({"prompt": 6, "started": 1})))
    assert grown.of("prompt_tokens") is None


def test_every_growth_is_known_or_has_a_reason() -> None:
    grown = delta(read(run.text({"prompt": 5})), read(run.text({"prompt": 7})))
    assert {name for name in COUNTED if (grown.of(name) is None) == bool(grown.why(name))} == set(COUNTED)


def test_a_sum_over_servers_is_unknown_if_one_of_them_is() -> None:
    known = delta(read(run.text(run.ZERO)), read(run.text(run.DECODE)))
    blind = delta(read(run.text(run.ZERO)), read(run.text({"started": 1.7e9})))
    assert total([known, known]).of("prompt_tokens") == 456
    assert total([known, blind]).of("prompt_tokens") is None
