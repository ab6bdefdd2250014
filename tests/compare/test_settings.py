"""What makes runs comparable: facts of the deployment, and the flags that describe the load."""

from typing import Any

import pytest

from harness.compare.settings import differing, settings_of
from harness.facts import Connector, Deployment, Role, Server
from harness.history import History, RunStarted

SERVER = Server("prefill-0", Role.PREFILL, "http://p", 16, connectors=(Connector.NIXL,))
BOTH = (SERVER, Server("decode-0", Role.DECODE, "http://d", 16, connectors=(Connector.NIXL,)))


def of(*argv: str, servers: tuple[Server, ...] = BOTH, **result: Any) -> dict[str, str]:
    history = History((RunStarted(0.0, argv, 0, "0.1.0", None, ("random_load",)),))
    return settings_of(Deployment(servers, None, "m"), history, {"num_prompts": 4, **result})


def names(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return list(differing({"a": one, "b": other}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("--result-dir", "a", "--label", "x"), ("--result-dir", "b", "--plain")),
        (("--seed", "1"), ("--seed", "2")),
        (("--input-len", "5"), ("--random-input-len=5",)),
        (("--port", "1", "--base-url", "http://a"), ()),
    ],
)
def test_flags_that_do_not_change_the_load_may_differ(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert names(of(*one), of(*other)) == []


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        (("--fault", "pause:server=decode-0,after=1,for=2"), "fault"),
        (("--verify", "all"), "verify"),
        (("--random-output-len", "40"), "random_output_len"),
        (("--dataset-path", "x.jsonl"), "dataset_path"),
        (("--ignore-eos",), "ignore_eos"),
        (("--sim-noise", "none"), "sim_noise"),
        (("--engine-arg=--max-num-seqs 4",), "engine_arg"),
    ],
)
def test_flags_that_change_it_are_named(flag: tuple[str, ...], name: str) -> None:
    assert names(of("--num-prompts", "4"), of("--num-prompts", "4", *flag)) == [name]


def test_facts_of_the_deployment_are_compared() -> None:
    fewer = (SERVER,)
    other = tuple(Server(one.name, one.role, one.url, 32, connectors=(Connector.OFFLOADING,)) for one in BOTH)
    assert names(of(), of(servers=fewer)) == ["decode_servers"]
    assert names(of(), of(servers=other)) == ["block_size", "connector"]
    assert names(of(), of(num_prompts=5)) == ["num_prompts"]


def test_goodput_of_other_objectives_is_another_metric() -> None:
    one, other = ({"goodput_objectives_ms": {"ttft": limit, "tpot": 50}} for limit in (100, 500))
    assert names(of(**one), of(**other)) == ["goodput_objectives_ms"]
    assert names(of(**one), of(goodput_objectives_ms={"tpot": 50, "ttft": 100})) == []
    assert names(of(**one), of()) == []


def test_a_fact_that_one_run_lacks_is_compared_among_the_others() -> None:
    runs = {"a": {"num_blocks": "16"}, "b": {}, "c": {"num_blocks": "32"}}
    assert differing(runs) == {"num_blocks": {"a": "16", "c": "32"}}


def test_a_fact_that_is_not_stored_is_not_compared() -> None:
    unknown = tuple(Server(one.name, one.role, one.url, connectors=(Connector.NIXL,)) for one in BOTH)
    assert names(of(), of(servers=unknown)) == []
