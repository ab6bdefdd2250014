"""Credentials in the URLs of P and D are sent to these servers and appear nowhere else."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from proxy_fakes import COMPLETIONS, Fake, answering, closed_port, closes, decoded, pair, prefilled, proxying, running

from harness.deploy.launch import start_proxy as launch_proxy
from harness.errors import UsageError
from harness.proxy import ProxyHandle, start_proxy

BASIC = "Basic dXNlcjpzZXNAbWU="
SECRETS = ("ses@me", "ses%40me", "user:", "k%26y", "k&y")


def secret(url: str) -> str:
    return url.replace("//", "//user:ses%40me@")


@asynccontextmanager
async def guarded(p: Any = prefilled, d: Any = decoded) -> AsyncIterator[tuple[Fake, Fake, ProxyHandle]]:
    """A proxy whose servers' URLs carry credentials and a query."""
    async with (
        running(p) as prefill,
        running(d) as decode,
        proxying([secret(prefill.url)], [secret(decode.url) + "/?key=k%26y"]) as proxy,
    ):
        yield prefill, decode, proxy


def require_hidden(*shown: object) -> None:
    for one in shown:
        assert not [secret for secret in SECRETS if secret in str(one)]


async def test_credentials_reach_the_servers_and_no_client() -> None:
    async with guarded() as (p, d, proxy), aiohttp.ClientSession() as client:
        async with client.post(proxy.url + COMPLETIONS, data=b"{}", headers={"Authorization": "Bearer x"}) as answer:
            assert answer.status == 200
            require_hidden(answer.headers, await answer.text())
            assert answer.headers["X-PD-Prefill"] == p.url.replace("//", "//<redacted>@")
        assert p.seen[0].headers.getall("Authorization") == d.seen[0].headers.getall("Authorization") == [BASIC]
        assert (p.seen[0].path_qs, d.seen[0].path_qs) == (COMPLETIONS, COMPLETIONS + "?key=k%26y")
        for page in ("/proxy/status", "/metrics", "/health", "/v1/models?x=1", "/nowhere"):
            async with client.get(proxy.url + page) as answer:
                require_hidden(answer.headers, await answer.text())
        assert {request.headers["Authorization"] for request in (*p.seen, *d.seen)} == {BASIC}
        assert d.seen[-1].path_qs == "/v1/models?x=1&key=k%26y"


async def test_the_clients_credentials_go_through_to_a_url_without_any() -> None:
    async with pair() as servers, servers.post({}, headers={"Authorization": "Bearer x"}):
        assert servers.p.seen[0].headers["Authorization"] == servers.d.seen[0].headers["Authorization"] == "Bearer x"


@pytest.mark.parametrize("p", [closes, answering(200, {}), answering(500, {})], ids=["closes", "no-handover", "error"])
async def test_errors_name_the_server_without_credentials(p: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        guarded(p) as (_, _, proxy),
        aiohttp.ClientSession() as client,
        client.post(proxy.url + COMPLETIONS, data=b"{}") as answer,
    ):
        assert answer.status >= 500
        require_hidden(answer.headers, await answer.text(), caplog.text)


async def test_an_unreachable_server_is_named_without_credentials(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = secret(await closed_port())
    async with aiohttp.ClientSession() as client, proxying([nowhere], [nowhere]) as proxy:
        async with client.post(proxy.url + COMPLETIONS, data=b"{}") as answer:
            assert "<redacted>@127.0.0.1" in await answer.text()
            require_hidden(answer.headers, await answer.text(), caplog.text)
        async with client.get(proxy.url + "/health") as answer:
            assert answer.status == 503
            require_hidden(await answer.text())


@pytest.mark.parametrize("url", ["ftp://user:ses@me@h", "http://user:ses/x@h:1", "user:ses@me@h:x"])
async def test_an_invalid_url_is_refused_without_showing_credentials(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a prefill server") as refused:
        await start_proxy([url], ["http://d"])
    require_hidden(refused.value)


def test_the_process_takes_urls_from_its_environment_and_prints_no_credentials() -> None:
    environment = {
        "PD_PROXY_PREFILL": "http://user:ses%40me@a:1 http://b:2",
        "PD_PROXY_DECODE": "http://user:ses%40me@c:3",
    }
    command = [sys.executable, "-m", "harness.proxy", "--port", "0"]
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
        finally:
            process.kill()
    assert line.endswith("(prefill http://<redacted>@a:1, http://b:2; decode http://<redacted>@c:3)\n")


def test_an_invalid_argument_is_repeated_without_credentials() -> None:
    command = [sys.executable, "-m", "harness.proxy", "http://user:sesame@h:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unrecognized" in done.stderr
    assert "sesame" not in done.stderr


class Nursery:
    """Records the process that it should start."""

    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}

    def start(self, _name: str, argv: Iterable[str], environment: Mapping[str, str]) -> None:
        self.argv, self.environment = tuple(argv), environment

    async def all_answer(self, _urls: Mapping[str, str]) -> None:
        pass


async def test_the_harness_starts_its_proxy_without_credentials_in_the_arguments() -> None:
    nursery = Nursery()
    await launch_proxy(nursery, [secret("http://a:1")], ["http://b:2", "http://c:3"], {})  # type: ignore[arg-type] # only these methods are used
    require_hidden(nursery.argv)
    assert nursery.environment["PD_PROXY_PREFILL"] == secret("http://a:1")
    assert nursery.environment["PD_PROXY_DECODE"] == "http://b:2 http://c:3"
