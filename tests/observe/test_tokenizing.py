"""Token ids from a server's tokenizer."""

from dataclasses import replace

from simulated import simulated

from harness.facts import Deployment
from harness.observe.tokenizing import tokenize
from harness.sim.deployment import SimDeployment


def facts(sim: SimDeployment) -> Deployment:
    servers = sim.pair.servers
    return sim.pair.facts({server.name: url for server, url in zip(servers, _urls(sim), strict=True)})


def _urls(sim: SimDeployment) -> list[str]:
    return [*sim.prefill_urls, *sim.decode_urls]


async def test_every_text_has_its_own_tokens_in_order() -> None:
    texts = [f"Note {number} about the river" for number in range(50)]
    async with simulated() as sim:
        found = await tokenize(facts(sim), {}, texts)
        tokenizer = sim.pair.decode.engine.tokenizer
        assert found is not None
        assert [tokenizer.decode(tokens) for tokens in found] == texts


async def test_a_server_that_does_not_tokenize_is_passed_over() -> None:
    async with simulated() as sim:
        known = facts(sim)
        prefill, decode = known.servers
        # Nothing is served under this path.
        lost = replace(known, servers=(prefill, replace(decode, url=decode.url + "/elsewhere")))
        assert await tokenize(lost, {}, ["a"]) == await tokenize(known, {}, ["a"]) is not None


async def test_without_a_server_that_tokenizes_there_are_no_tokens() -> None:
    async with simulated() as sim:
        known = facts(sim)
        nowhere = tuple(replace(server, url=server.url + "/elsewhere") for server in known.servers)
        assert await tokenize(replace(known, servers=nowhere), {}, ["a", "b"]) is None
