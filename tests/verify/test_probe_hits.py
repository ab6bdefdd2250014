"""A probe counts only if its hit in the cache is shown, on the server that served the prompt."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import counted_run
import pytest
from sim_history import SimRun, load

from harness.facts import Connector, Deployment, Role, Server, serving
from harness.history import Choice, Ended, Entry, History, Outcome, Scraped, Sent, Usage
from harness.load.answers.answer import Answer
from harness.scenario import Condition, Phase, Purpose, Request, Route
from harness.sim import SimConfig, SimPair
from harness.verdict import Verdict
from harness.verify.asking import VerifyOptions, VerifyPolicy
from harness.verify.asking.options import Verification
from harness.verify.asking.probe import cache_probes
from harness.verify.judging import outputs
from harness.verify.judging.hits import Hits, probe_hits

DEPLOYMENT = replace(
    counted_run.DEPLOYMENT,
    servers=tuple(replace(one, block_size=16, connectors=(Connector.NIXL,)) for one in counted_run.DEPLOYMENT.servers),
)
BOTH = pytest.mark.parametrize("by_usage", [True, False], ids=["by usage", "by counters"])


def served(count: int = 24, **fields: object) -> SimRun:
    config = {"connectors": (Connector.NIXL,), "seed": 4, **fields}
    run = SimRun(SimPair(SimConfig(**config), lambda: 0.0))  # type: ignore[arg-type]  # the tests name the fields
    run.run(load(count, seed=4))
    return run


def verified(count: int = 24, **fields: object) -> SimRun:
    run = served(count, **fields)
    run.verify()
    return run


def hits(history: History, deployment: Deployment = DEPLOYMENT) -> Hits:
    """The hits of decode's prefix cache."""
    (found,) = (
        one
        for one in probe_hits(deployment, history)
        if (one.cache, one.server) == (Condition.PREFIX_CACHE, "decode-0")
    )
    return found


@BOTH
def test_all_hits_of_probes_are_shown(by_usage: bool) -> None:
    run = verified(prompt_tokens_details=by_usage)
    found = hits(run.history)
    assert found.least == found.asked > 0
    assert found.missing == 0


@BOTH
def test_probes_of_an_emptied_cache_do_not_count_even_if_they_hit_the_blocks_of_other_probes(by_usage: bool) -> None:
    run = served(prompt_tokens_details=by_usage)
    for server in run.pair.servers:
        assert server.engine.reset_prefix_cache()
    before = run.pair.decode.engine.stats.prefix_hits
    check = outputs(DEPLOYMENT, run.verify())
    assert run.pair.decode.engine.stats.prefix_hits > before, "no probe hit the blocks of another probe"
    found = hits(run.history)
    assert (found.least, bool(found.missing), bool(found.why)) == (0, True, True)
    note = next(note for note in check.notes if "decode-0's cache" in note)
    assert "none of them is shown to be read from there" in note
    assert check.verdict is Verdict.VALID


@BOTH
def test_probes_of_evicted_blocks_do_not_count(by_usage: bool) -> None:
    """The pool has fewer blocks than the load needs: the first prompts were evicted, the last are cached."""
    run = verified(60, prompt_tokens_details=by_usage, decode={"num_blocks": 200})
    found = hits(run.history)
    assert found.least < found.asked
    assert found.missing
    if by_usage:
        assert found.least > 0


def test_a_hit_that_may_be_from_a_tier_is_no_hit_of_the_prefix_cache() -> None:
    run = served(prompt_tokens_details=True, connectors=(Connector.NIXL, Connector.OFFLOADING))
    for server in run.pair.servers:
        assert server.engine.reset_prefix_cache()
    run.verify()
    with_tier = DEPLOYMENT.with_servers(connectors=(Connector.NIXL, Connector.OFFLOADING))
    found = hits(run.history, with_tier)
    usage = [o.ended.usage for o in run.history.operations(phase="probe", route=Route.DECODE)]
    assert usage
    assert all(one is not None and one.cached_tokens for one in usage), "the tier gave everything back"
    assert found.restored
    assert found.least < found.asked


def probe(tokens: int, at: float, cached: int | None) -> tuple[Sent, Ended]:
    """A probe of a prompt's first tokens, with the cached tokens that usage reports."""
    request = Request(
        f"load-1-probe-decode-{tokens}-{at}",
        tuple(range(1000, 1001 + tokens)),
        route=Route.DECODE,
        server=0,
        purpose=Purpose.PROBE,
        about="load-1",
        condition=Condition.PREFIX_CACHE,
    )
    ended = Ended(at + 0.5, request.request_id, Outcome.OK, usage=Usage(tokens + 1, 1, cached))
    return Sent(at, request, "load", "probe-decode", at), ended


def test_a_hit_on_a_block_that_another_probe_computed_anew_does_not_count() -> None:
    """The longest prefix misses from its second block on; later probes of that block read its recomputed block."""
    missed = probe(64, 1.0, 16)
    later = (*probe(16, 2.0, 16), *probe(32, 3.0, 32), *probe(48, 4.0, 48))
    earlier = probe(32, 0.0, 32)
    assert hits(History((*missed, *later))).least == 1
    assert hits(History((*earlier, *missed, *later))).least == 2


def changed(run: SimRun, change: Callable[[Scraped], Scraped]) -> History:
    entries: list[Entry] = [change(one) if isinstance(one, Scraped) else one for one in run.entries]
    return History(tuple(entries))


def grown(by: int, *names: str) -> Callable[[Scraped], Scraped]:
    """The later reading of each pair, higher by ``by`` in these families."""

    def change(one: Scraped) -> Scraped:
        if one.label != "watched-after":
            return one
        samples = (replace(s, value=s.value + by) if s.name in names else s for s in one.samples)
        return replace(one, samples=tuple(samples))

    return change


def test_counters_that_other_requests_moved_show_nothing() -> None:
    run = verified()
    disturbed = changed(run, grown(40, "vllm:prompt_tokens_total", "vllm:prefix_cache_queries_total"))
    found = hits(disturbed)
    assert found.least == 0
    assert "prompt tokens meanwhile" in found.why


def test_lookups_that_an_older_engine_repeats_do_not_hide_the_hits() -> None:
    """Repeated cache lookups are counted again, prompt tokens by source are not."""
    run = verified()
    repeated = changed(run, grown(64, "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"))
    found = hits(repeated)
    assert found.least == found.asked


def test_counters_that_were_not_read_show_nothing() -> None:
    run = verified()
    unread = History(tuple(one for one in run.entries if not isinstance(one, Scraped)))
    found = hits(unread)
    assert (found.least, found.why) == (0, "its counters were not read before and after the phase")


@BOTH
def test_only_usage_shows_hits_of_several_engines_behind_one_url(by_usage: bool) -> None:
    run = verified(prompt_tokens_details=by_usage)
    found = hits(run.history, DEPLOYMENT.with_servers(engines=4))
    assert found.least == (found.asked if by_usage else 0)


# --- which server is probed ---

TWO = (
    Server("prefill-0", Role.PREFILL, "http://p:8100", 16),
    Server("decode-0", Role.DECODE, "http://user:secret@d0:8200", 16),
    Server("decode-1", Role.DECODE, "http://d1:8200/", 16),
)


def answered(number: int, decode_server: str | None) -> tuple[Sent, Ended]:
    request = Request(f"load-{number}", tuple(range(100 * number, 100 * number + 40)))
    ended = Ended(1.0, request.request_id, Outcome.OK, choices=(Choice((7,)),), decode_server=decode_server)
    return Sent(0.0, request, "load", "load", 0.0), ended


def probes(history: History) -> Sequence[Phase]:
    how = VerifyOptions(policy=VerifyPolicy.parse("all"), salt="s", concurrency=4)
    return cache_probes(Verification(replace(DEPLOYMENT, servers=TWO), how), history)


def asked(history: History) -> dict[str, set[int | None]]:
    """The decode servers that are probed, by the id of the request that has the prompt."""
    phases = probes(history)
    found: dict[str, set[int | None]] = {}
    for request in (one for one in phases[0].requests if one.route is Route.DECODE):
        assert request.purpose is Purpose.PROBE
        assert request.about is not None
        found.setdefault(request.about, set()).add(request.server)
    ids = [request.request_id for phase in phases for request in phase.requests]
    assert len(ids) == len(set(ids))
    return found


def test_a_probe_goes_to_the_server_that_served_the_prompt() -> None:
    history = History((*answered(1, "http://d1:8200"), *answered(2, "http://d0:8200")))
    assert asked(history) == {"load-1": {1}, "load-2": {0}}


def test_every_server_is_probed_if_the_proxy_does_not_report_which_one_served() -> None:
    assert asked(History((*answered(1, None), *answered(2, "http://elsewhere")))) == {
        "load-1": {0, 1},
        "load-2": {0, 1},
    }


def test_the_only_server_of_a_role_served_whatever_url_the_proxy_reports() -> None:
    assert serving(TWO[:1], "http://10.0.0.1:1") == 0
    assert serving(TWO[:1], None) == 0


@pytest.mark.parametrize(
    ("url", "which"),
    [
        ("http://d0:8200", 0),
        ("d1:8200", 1),
        ("http://D1:8200/v1", 1),
        ("https://d1:8200", 1),
        ("http://d1", None),
        ("", None),
        ("http://[", None),
    ],
)
def test_servers_are_identified_by_host_and_port(url: str, which: int | None) -> None:
    assert serving(TWO[1:], url) == which


def test_localhost_is_the_loopback_address() -> None:
    servers = tuple(Server(f"decode-{port}", Role.DECODE, f"http://localhost:{port}") for port in (1, 2))
    assert serving(servers, "http://127.0.0.1:2") == 1


def test_counters_are_not_read_around_probes_if_the_deployment_has_not_settled() -> None:
    history = History((*answered(1, "http://d1:8200"), *answered(2, "http://d0:8200")))
    busy = Scraped(
        2.0, "decode-0", "after", "load", "load", (), settled=False, unsettled_because="1 request is running"
    )
    for entries, watched in ((history.entries, True), ((*history.entries, busy), False)):
        assert {phase.watched for phase in probes(History(entries))} == {watched}


# --- cached tokens in usage ---


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({"cached_tokens": 48}, 48),
        ({"cached_tokens": 0}, 0),
        (None, None),
        ({}, None),
        ("many", None),
        ({"cached_tokens": None}, None),
        ({"cached_tokens": "48"}, None),
        ({"cached_tokens": -1}, None),
        ({"cached_tokens": True}, None),
    ],
)
def test_usage_reports_cached_tokens_or_nothing_and_is_never_a_fault(details: object, cached: int | None) -> None:
    answer = Answer()
    usage = {"prompt_tokens": 49, "completion_tokens": 1, "prompt_tokens_details": details}
    body = repr({"choices": [], "usage": usage}).replace("'", '"').replace("None", "null").replace("True", "true")
    answer.body(body.encode(), 1.0)
    assert answer.usage == Usage(49, 1, cached)
    assert not answer.fault
