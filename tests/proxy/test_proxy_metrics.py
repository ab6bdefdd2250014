"""The proxy's ``/metrics`` shows the counts of ``/proxy/status``."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from proxy_fakes import COMPLETIONS, answering, closed_port, pair, proxying

from harness.proxy.status import UpstreamCounts

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def expected(status: dict[str, Any]) -> Iterator[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]:
    for name in ("requests", "rejected", "stranded_prefills"):
        yield (f"pd_proxy_{name}_total", ()), status[name]
    yield ("pd_proxy_requests_in_flight", ()), status["in_flight"]
    for phase, count in status["client_gone"].items():
        yield ("pd_proxy_client_gone_total", (("phase", phase),)), count
    servers = [(role, n, counts) for role in ("prefill", "decode") for n, counts in enumerate(status[role])]
    for role, number, counts in [*servers, ("other", 0, status["other"])]:
        labels = (("role", role), ("server", f"{role}-{number}"), ("url", counts["url"]))
        for field in fields(UpstreamCounts):
            if field.name != "url":
                yield (f"pd_proxy_upstream_{field.name}_total", labels), counts[field.name]


async def scraped(client: aiohttp.ClientSession, url: str) -> Samples:
    async with client.get(url + "/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(await answer.text())
        samples = [sample for family in families for sample in family.samples]
    named = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(named) == len(samples), "a sample given twice would fail the whole scrape"
    return named


async def test_metrics_show_every_count_of_the_status_page() -> None:
    async with pair() as servers:
        for body in (b"{}", b"{}", b"no json"):
            async with servers.post(body) as answer:
                await answer.read()
        servers.d.script = answering(500, {})
        async with servers.post({}) as answer:
            await answer.read()
        shown = await scraped(servers.client, servers.proxy.url)
        assert shown == dict(expected(servers.proxy.status()))
        assert shown["pd_proxy_requests_total", ()] == 4
        assert shown["pd_proxy_rejected_total", ()] == 1
        decode = (("role", "decode"), ("server", "decode-0"), ("url", servers.d.url))
        assert shown["pd_proxy_upstream_http_errors_total", decode] == 1


async def test_a_server_given_twice_has_two_sets_of_counts() -> None:
    nowhere = await closed_port()
    async with pair() as servers, proxying([servers.p.url] * 2, [servers.d.url, nowhere]) as proxy:
        for _ in range(2):
            async with servers.client.post(proxy.url + COMPLETIONS, data=b"{}") as answer:
                await answer.read()
        assert await scraped(servers.client, proxy.url) == dict(expected(proxy.status()))
