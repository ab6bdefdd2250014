"""Runs all checks that come before the warm-up."""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from harness.clock import Clock
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.preflight.compatibility import check_connectors, check_kv_format, check_model
from harness.preflight.demand import check_demands
from harness.preflight.distinct import Addresses, check_distinct, hosts, indistinguishable, same_server_item
from harness.preflight.generation_defaults import check_generation_defaults
from harness.preflight.item import Item, Level
from harness.preflight.same_server import share_counters
from harness.preflight.server_report import ServerReport, read_reports
from harness.preflight.traffic import check_traffic


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the run needs from the deployment."""

    demands: Sequence[Demand] = ()
    transfers: bool = True
    """Whether KV should be transferred from prefill to decode servers."""
    vocabulary: int | None = None
    """Number of tokens; None if unknown."""


async def check_deployment(
    session: aiohttp.ClientSession, deployment: Deployment, clock: Clock, expectations: Expectations
) -> tuple[list[ServerReport], list[Item]]:
    """The servers' reports and the items of every check; takes a second or two."""
    reports = await read_reports(session, deployment.servers)
    urls = [server.url for server in deployment.servers]
    addresses = await _resolve([*urls, deployment.proxy_url] if deployment.proxy_url else urls)
    items = list(_check_reports(reports, deployment, addresses, expectations))
    for first, second in indistinguishable(reports, addresses):
        if await share_counters(session, (first.server, second.server), deployment.model, clock):
            items.insert(0, same_server_item(first, second, "a request to one of them is counted by both"))
    if not deployment.launched:
        items += await check_traffic(session, deployment.servers, clock)
    return reports, items


def _check_reports(
    reports: Sequence[ServerReport], deployment: Deployment, addresses: Addresses, expectations: Expectations
) -> Iterator[Item]:
    yield from check_distinct(reports, deployment.proxy_url, addresses)
    yield from check_model(reports, deployment.model)
    yield from check_connectors(reports, transfers=expectations.transfers)
    yield from check_kv_format(reports)
    yield from check_demands(deployment, expectations.demands, expectations.vocabulary)
    output = max((demand.output_tokens for demand in expectations.demands), default=0)
    yield from check_generation_defaults(reports, _generation_config(deployment), output)
    yield _check_resets(reports)


def _check_resets(reports: Sequence[ServerReport]) -> Item:
    """Whether caches can be emptied, which verification needs to probe offload tiers."""
    without = [report.name for report in reports if report.can_reset is False]
    if not without:
        return Item("probes", Level.OK, "Caches can be emptied, so offload tiers can be probed")
    return Item(
        "probes",
        Level.WARNS,
        f"The caches of {', '.join(without)} cannot be emptied (no /reset_prefix_cache), so offload tiers are not "
        "probed",
        "Launch the servers with VLLM_SERVER_DEV_MODE=1, if no untrusted client can reach them",
    )


def _generation_config(deployment: Deployment) -> Mapping[str, Any] | None:
    """The model's ``generation_config.json``; empty if the model's directory has none, None if it cannot be read."""
    directory = Path(deployment.model_path or "")
    if not deployment.model_path or not (directory / "config.json").is_file():
        return None
    try:
        content = json.loads((directory / "generation_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


async def _resolve(urls: Sequence[str]) -> Addresses:
    loop = asyncio.get_running_loop()

    async def addresses(host: str) -> tuple[str, frozenset[str]]:
        try:
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return host, frozenset({host})
        return host, frozenset(str(entry[4][0]) for entry in found)

    return dict(await asyncio.gather(*map(addresses, hosts(urls))))
