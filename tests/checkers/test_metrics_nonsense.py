"""Odd and hostile ``/metrics`` never cause a traceback or a valid verdict."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import counted_run as run
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import example, given
from hypothesis import strategies as st
from jumping_clock import JumpingClock

from harness.checkers import judge
from harness.checkers.settled import settled
from harness.checkers.token_sources import token_sources
from harness.errors import UsageError
from harness.facts import Role, Server
from harness.history import Sample, Scraped, ScrapeFailed
from harness.observe.counters import COUNTED, SAMPLE_NAMES, SOURCES, Counters, read_counters
from harness.observe.exposition import parse
from harness.observe.growth import delta
from harness.observe.scrape import Occasion, scrape
from harness.observe.server_info import learn
from harness.observe.settle import AGREEING, Settled, settle
from harness.verdict import Bounds, Comparison, Verdict

NAN, INF = float("nan"), float("inf")
NONSENSE = [NAN, INF, -INF, -1.0, 2.0**60]
ODD_TEXTS = [
    "",
    "<!DOCTYPE html><html><body>Bad gateway</body></html>",
    '{"error": "no metrics here"}',
    "vllm:prompt_tokens_total{ 3 4 5 x\n",
    'vllm:prompt_tokens_total{engine="0" 5\n',
    "vllm:prompt_tokens_total\n",
    "vllm:prompt_tokens_total{} \n",
    'vllm:prompt_tokens_total{a="b"}x{ 1\n',
    "# TYPE vllm:prompt_tokens_total\n",
    "# TYPE vllm:prompt_tokens_total nonsense\nvllm:prompt_tokens_total 1\n",
    "vllm:prompt_tokens_total 1e400\n",
    "vllm:prompt_tokens_total 0x10\n",
    "vllm:prompt_tokens_total 1_000\n",
    'vllm:prompt_tokens_total{engine="\\"} 5\n',
]


def read(text: str) -> Counters:
    exposition = parse(text, SAMPLE_NAMES)
    return read_counters(Scraped(0.0, "s", "before", "c", "p", exposition.samples, declared=exposition.declared))


def prompt_tokens(line: str) -> float | None:
    return read(line).prompt_tokens


@pytest.mark.parametrize(
    "line",
    [
        "vllm:prompt_tokens_total 5.0",
        "vllm:prompt_tokens_total 5e0",
        "vllm:prompt_tokens_total\t5",
        "  vllm:prompt_tokens_total 5",
        "vllm:prompt_tokens_total 5 1700000000000",
        'vllm:prompt_tokens_total{model_name="None"} 5',
        'vllm:prompt_tokens_total{model_name="a } b, c=\\"d\\" # {x=\\"y\\"} 7"} 5',
        'vllm:prompt_tokens_total{model_name="line\\nbreak and \u2028 another"} 5',
        'vllm:prompt_tokens_total{engine="0"} 5 # {trace_id="abc"} 0.67 1700000000.0',
        "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 5\n# EOF",
        "# TYPE vllm:prompt_tokens_total counter\r\nvllm:prompt_tokens_total 5\r",
        "kserve_vllm:prompt_tokens_total 5",
    ],
)
def test_every_way_to_write_a_sample_is_read(line: str) -> None:
    assert prompt_tokens(line + "\n") == 5


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("vllm:prompt_tokens_total NaN", "NaN for vllm:prompt_tokens_total"),
        ("vllm:prompt_tokens_total +Inf", "an infinite value for vllm:prompt_tokens_total"),
        ("vllm:prompt_tokens_total -3", "a negative value for vllm:prompt_tokens_total"),
        ("vllm:prompt_tokens_total 3.5", "must be a whole number"),
        ("vllm:prompt_tokens_total 1e300", "too large for an exact count"),
        ("vllm:prompt_tokens_total 1\nkserve_vllm:prompt_tokens_total 1", "twice with the same labels"),
        ('vllm:prompt_tokens_total{engine="0"} 1\nvllm:prompt_tokens_total{engine="1"} NaN', "NaN"),
    ],
)
def test_an_impossible_value_is_not_used_and_has_a_reason(lines: str, what: str) -> None:
    counters = read(lines + "\n")
    grown = delta(counters, counters)
    assert counters.prompt_tokens is None
    assert grown.of("prompt_tokens") is None
    assert what in grown.why("prompt_tokens")
    assert "prompt_tokens" not in grown.absent
    assert "nixl_bytes" in grown.absent


def test_with_one_start_time_a_restart_cannot_be_ruled_out() -> None:
    grown = delta(
        read("vllm:prompt_tokens_total 1\n"), read("vllm:prompt_tokens_total 2\nprocess_start_time_seconds 1\n")
    )
    assert grown.of("prompt_tokens") is None
    assert "may have restarted" in grown.why("prompt_tokens")


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_text_that_is_not_an_exposition_is_a_value_error_or_has_no_counters(text: str) -> None:
    try:
        counters = read(text)
    except ValueError:
        return
    assert counters.prompt_tokens in (None, 0, 1)


@given(st.text() | st.text(alphabet='vlm:prompt_tokens_total{}="#, \\\n\t0123456789.eE+-NaInf', max_size=80))
def test_parsing_any_text_gives_samples_or_a_value_error(text: str) -> None:
    for form in (text, f"vllm:prompt_tokens_total{text}\n", f'vllm:prompt_tokens_total{{engine="{text}"}} 3\n'):
        try:
            counters = read(form)
        except ValueError:
            continue
        assert counters.prompt_tokens is None or 0 <= counters.prompt_tokens <= 2**53


ODD_VALUES = st.sampled_from([0.0, 1.0, 2.5, 228.0, *NONSENSE]) | st.floats()
SAMPLES = st.builds(
    Sample,
    st.sampled_from(sorted(SAMPLE_NAMES)),
    st.dictionaries(
        st.sampled_from(["engine", "source", "transfer_type", "x"]),
        st.sampled_from(["0", "None", "local_compute", "é\n"]),
    ),
    ODD_VALUES,
)


@given(st.lists(SAMPLES, max_size=12), st.lists(SAMPLES, max_size=12))
def test_the_growth_of_any_samples_is_an_integer_or_has_a_reason(before: list[Sample], after: list[Sample]) -> None:
    first, last = (read_counters(Scraped(0.0, "s", "b", "c", "p", tuple(some))) for some in (before, after))
    grown = delta(first, last)
    for name in COUNTED:
        value = grown.of(name)
        assert (value is None) == bool(grown.why(name))
        assert value is None or (0 <= value <= 2**53 and float(value).is_integer())


@given(st.dictionaries(st.sampled_from(sorted(run.NAMES)), ODD_VALUES, min_size=1, max_size=4), st.booleans())
@example(odd={"compute": 0.0, "store": 0.0, "store_legacy": 0.0}, launched=False)
def test_odd_counters_neither_make_a_run_valid_nor_crash_a_checker(odd: dict[str, float], launched: bool) -> None:
    values: Mapping[str, float] = run.DECODE | odd
    scraped = [*run.readings()[:3], run.reading("decode-0", "after", values)]
    deployment = replace(run.DEPLOYMENT, launched=launched)
    judgement = judge(deployment, run.history(scraped))
    assert not [check.summary for check in judgement.checks if "the checker itself failed" in check.summary]
    clean = read_counters(run.readings()[3])
    if read_counters(scraped[-1]) != clean:
        # Of an attached deployment less is known, so that several values of a counter may be right.
        several = {one.counter for one in judgement.comparisons if one.expected and not one.expected.exact}
        # vLLM counts offloaded bytes a second time, under an older name.
        several |= {f"{name}_legacy" for name in several}
        assert judgement.verdict is not Verdict.VALID or _alike(read_counters(scraped[-1]), clean, but_for=several)


def _alike(one: Counters, other: Counters, *, but_for: set[str]) -> bool:
    """Whether two readings agree in every counter, except ``but_for`` and gauges that a settled reading may hold."""
    unjudged = {"running", "waiting", "kv_usage", "offload_usage", "preemptions", "offload_refused"} | but_for
    return all(getattr(one, name) == getattr(other, name) or name in unjudged for name in SOURCES)


@pytest.mark.parametrize("counter", ["compute", "external", "prompt", "nixl", "store", "failed", "generated"])
@pytest.mark.parametrize("value", NONSENSE)
def test_an_impossible_counter_is_unknown(counter: str, value: float) -> None:
    after = [*run.readings()[:3], run.reading("decode-0", "after", run.DECODE | {counter: value})]
    assert judge(run.DEPLOYMENT, run.history(after)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("observed", [NAN, INF, -INF])
def test_a_comparison_with_a_value_that_is_not_finite_is_unknown(observed: float) -> None:
    assert Comparison("s", "p", "d", "c", Bounds(0, 5), observed).verdict is Verdict.UNKNOWN


async def settled_with(values: Mapping[str, float], *, moving: bool = False) -> tuple[Settled, int]:
    count = 0

    async def read_all() -> dict[str, Scraped | ScrapeFailed]:
        nonlocal count
        count += 1
        more = {"prompt": 1000 + count} if moving else {}
        return {"decode-0": run.reading("decode-0", "after", {**run.DECODE, **values, **more})}

    return await settle(read_all, JumpingClock(), baseline={"decode-0": 0.0}), count


@pytest.mark.parametrize("gauge", ["running", "waiting", "kv_usage", "pinned"])
@pytest.mark.parametrize("value", NONSENSE)
async def test_an_impossible_gauge_ends_the_wait_at_once_with_a_reason(gauge: str, value: float) -> None:
    result, count = await settled_with({gauge: value})
    assert (result.settled, count) == (False, AGREEING)
    assert "so whether it has settled cannot be seen" in result.because["decode-0"]
    name = run.NAMES[gauge].partition("{")[0]
    assert name in result.because["decode-0"]


async def test_an_impossible_gauge_ends_the_wait_although_counters_grow() -> None:
    result, count = await settled_with({"running": NAN}, moving=True)
    assert (result.settled, count) == (False, AGREEING)


async def test_a_reading_with_an_impossible_gauge_is_unknown() -> None:
    after = run.reading("decode-0", "after", run.DECODE | {"kv_usage": NAN})
    marked = replace(after, settled=False, unsettled_because="the server exposes NaN for vllm:kv_cache_usage_perc")
    history = run.history([*run.readings()[:3], marked])
    for check in (settled, token_sources):
        assert check(run.DEPLOYMENT, history).verdict is Verdict.UNKNOWN


async def test_a_server_that_keeps_counting_until_the_deadline_is_said_to_be_used_by_others() -> None:
    result, _ = await settled_with({}, moving=True)
    assert result.seconds >= 45
    assert (
        "prompt tokens while this run had no request in flight: other clients use this server"
        in result.because["decode-0"]
    )


async def answered(body: dict[str, Any]) -> tuple[Scraped | ScrapeFailed, str]:
    """The reading of a server that gives this answer on every path, and the error of learning its facts."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(**body)

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server, ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        got = await scrape(session, Server("decode-0", Role.DECODE, url), JumpingClock(), Occasion("c", "p", "after"))
        with pytest.raises(UsageError) as refused:
            await learn(session, prefill_urls=[], decode_urls=[url], proxy_url=None)
    return got, str(refused.value)


BODIES: list[dict[str, Any]] = [
    {"status": 500, "text": "boom"},
    {"status": 200, "text": ""},
    {"status": 200, "text": "<html>Welcome to nginx!</html>", "content_type": "text/html"},
    {"status": 200, "body": b"\xff\xfe\x00vllm:prompt_tokens_total 1", "content_type": "text/plain"},
    {"status": 200, "body": b"vllm:prompt_tokens_total{ 1", "headers": {"Content-Type": "text/plain; charset=rot13"}},
    {"status": 200, "body": b"not compressed", "headers": {"Content-Encoding": "gzip"}},
    {"status": 302, "headers": {"Location": "ftp://elsewhere/"}},
]


@pytest.mark.parametrize("body", BODIES, ids=str)
async def test_an_answer_that_is_not_an_exposition_gives_a_failed_or_empty_reading(body: dict[str, Any]) -> None:
    got, refused = await answered(body)
    assert isinstance(got, ScrapeFailed) or not got.samples
    assert "--decode-url" in refused
