"""Incomplete expositions: ended early, without one engine's samples, or with labels on some families only."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge
from harness.facts import Role, Server
from harness.history import Sample, Scraped
from harness.observe.counters import SAMPLE_NAMES, Counters, read_counters
from harness.observe.exposition import parse
from harness.observe.growth import delta
from harness.observe.server_info import _WANTED, _server
from harness.verdict import Verdict

GENERATED = "vllm:generation_tokens_total"


def counters(**by_engine: float) -> Counters:
    """``one=5``: the engine with label ``one`` has generated five tokens."""
    samples = tuple(Sample(GENERATED, {"engine": engine}, value) for engine, value in by_engine.items())
    return read_counters(Scraped(0.0, "s", "before", "c", "p", samples))


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_value_that_is_ends_early_is_not_read(missing: int) -> None:
    whole = f'{GENERATED}{{engine="0"}} 2237.0\n'
    assert parse(whole, SAMPLE_NAMES).samples[0].value == 2237
    with pytest.raises(ValueError, match="cut off"):
        parse(whole[:-missing], SAMPLE_NAMES)


def test_an_unneeded_last_line_may_end_early() -> None:
    text = f"{GENERATED} 5\n# TYPE vllm:other counter\nvllm:other_total 7"
    assert [sample.value for sample in parse(text, SAMPLE_NAMES).samples] == [5]


def test_a_restarted_engine_is_found_beside_one_that_counted_more() -> None:
    grown = delta(counters(one=100, two=100), counters(one=900, two=10))
    assert grown.of("generation_tokens") is None
    assert 'engine="two"' in grown.why("generation_tokens")
    assert "went backwards, from 100 to 10" in grown.why("generation_tokens")


def test_an_engine_that_is_no_longer_exposed_makes_the_sum_unknown() -> None:
    grown = delta(counters(one=100, two=100), counters(one=900))
    assert "is no longer exposed" in grown.why("generation_tokens")


def test_a_new_engine_counts_from_0() -> None:
    assert delta(counters(one=100), counters(one=900, two=10)).of("generation_tokens") == 810


def test_an_engine_that_counted_nothing_may_disappear() -> None:
    assert delta(counters(one=100, two=0), counters(one=900)).of("generation_tokens") == 800


@pytest.mark.parametrize(
    ("counter", "label"), [("prompt", ""), ("external", "external_kv_transfer"), ("nixl", ""), ("generated", "")]
)
def test_a_run_in_which_one_of_several_engines_restarted_is_unknown(counter: str, label: str) -> None:
    name = run.NAMES[counter].partition("{")[0]
    labels = {"engine": "1", "model_name": "canary"} | ({"source": label} if label else {})
    spent = {"before": 50.0, "after": 20.0}
    scraped = [
        replace(one, samples=(*one.samples, Sample(name, labels, spent[one.label])))
        if one.server == "decode-0"
        else one
        for one in run.readings()
    ]
    assert judge(run.DEPLOYMENT, run.history(scraped)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("text", "engines"),
    [
        ('vllm:num_requests_running{engine="0"} 0\nvllm:generation_tokens_total{engine="0"} 5\n', 1),
        ("vllm:num_requests_running 0\nvllm:generation_tokens_total 5\n", 1),
        ("\n".join(("vllm:num_requests_running 0", *(f'{GENERATED}{{engine="{n}"}} 5' for n in range(2)), "")), 2),
        ('vllm:num_requests_running{dp_rank="0"} 0\nvllm:num_requests_running{dp_rank="1"} 0\n', 2),
        ("vllm:num_requests_running 0\nkserve_vllm:num_requests_running 0\n", 1),
    ],
)
def test_engines_are_counted_in_any_family_with_engine_labels(text: str, engines: int) -> None:
    assert _server(Server("d", Role.DECODE, "http://d"), parse(text, _WANTED), {}, None, None).engines == engines
