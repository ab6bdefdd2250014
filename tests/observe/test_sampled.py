"""The few numbers that are followed during a load, read from the text of /metrics."""

from pathlib import Path

import pytest

from harness.history import Sampled, Scraped
from harness.observe.counters import SAMPLE_NAMES, read_counters
from harness.observe.exposition import parse
from harness.observe.sampled import read_sampled

DATA = Path(__file__).parents[1] / "data"


def read(text: str) -> Sampled:
    return read_sampled(text, 1.5, "decode-0")


@pytest.mark.parametrize("name", ["metrics_prefill.txt", "metrics_decode.txt"])
def test_the_numbers_of_a_real_server_are_those_of_the_careful_parser(name: str) -> None:
    text = (DATA / name).read_text()
    exposition = parse(text, SAMPLE_NAMES)
    counters = read_counters(Scraped(0.0, "s", "before", "c", "p", exposition.samples, declared=exposition.declared))
    found = read(text)
    fields = [field for field in Sampled.__slots__ if field not in ("at", "server", "cause")]
    assert {field: getattr(found, field) for field in fields} == {field: getattr(counters, field) for field in fields}
    assert found.prompt_tokens


def test_sources_are_told_apart_and_engines_summed_but_for_the_usage() -> None:
    text = """# HELP vllm:prompt_tokens_by_source_total 5 things
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="a}\\"b",source="local_compute"} 10.0
kserve_vllm:prompt_tokens_by_source_total{engine="1",source="local_compute"} 2.0
vllm:prompt_tokens_by_source_total{engine="0",source="external_kv_transfer"} 3e2 # {trace="x"} 7
vllm:prompt_tokens_by_source_total{engine="0",source="somewhere_else"} 9
vllm:prompt_tokens_by_source_total{engine="0",data_source="local_cache_hit"} 9
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.25
vllm:num_requests_running 4
not_vllm_at_all:num_requests_waiting 4
"""
    assert read(text) == Sampled(1.5, "decode-0", 4, None, 0.375, None, 12, None, 300)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "many", "", "1e999"])
def test_an_impossible_value_is_unknown(value: str) -> None:
    assert read(f"vllm:num_requests_running {value}\n").running is None
    assert read(f"vllm:num_requests_waiting 3\nvllm:num_requests_waiting {value}\n").waiting in (None, 3)


def test_the_value_of_a_cut_line_is_unknown() -> None:
    found = read("vllm:num_requests_running 2\nvllm:prompt_tokens_total 22")
    assert (found.running, found.prompt_tokens) == (2, None)


@pytest.mark.parametrize("text", ["", "<html>404</html>", 'vllm:num_requests_running{model="', "\n" * 1000])
def test_a_text_that_is_no_exposition_has_no_numbers(text: str) -> None:
    assert read(text) == Sampled(1.5, "decode-0")
