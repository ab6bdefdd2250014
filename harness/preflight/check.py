"""All checks that need no generated token, on one deployment."""

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
from harness.preflight.defaults import generation_defaults
from harness.preflight.demand import fits
from harness.preflight.item import Item, Level
from harness.preflight.servers import Resolve, connectors, distinct, form, hosts, may_be_one, model, same_server
from harness.preflight.told import Told, tell_all
from harness.preflight.traffic import traffic
from harness.preflight.twins import are_one


@dataclass(frozen=True, slots=True)
class Questions:
    """What is checked beside the servers themselves."""

    demands: Sequence[Demand] = ()
    transfers: bool = True
    """Whether KV is to be carried from prefill to decode servers."""
    vocabulary: int | None = None
    """Tokens; None: not known."""
    headers: Mapping[str, str] | None = None


async def look(
    session: aiohttp.ClientSession, deployment: Deployment, clock: Clock, questions: Questions
) -> tuple[list[Told], list[Item]]:
    """What the servers tell, and every check's items; takes a second or two."""
    told = await tell_all(session, deployment.servers)
    urls = [server.url for server in deployment.servers]
    resolved = await _resolve([*urls, deployment.proxy_url] if deployment.proxy_url else urls)
    items = list(_pure(told, deployment, resolved, questions))
    for one, other in may_be_one(told, resolved):
        if await are_one(session, (one.server, other.server), deployment.model, clock):
            items.insert(0, same_server(one, other, "what one is asked, the other counts"))
    if not deployment.launched:
        items += await traffic(session, deployment.servers, clock)
    return told, items


def _pure(told: Sequence[Told], deployment: Deployment, resolved: Resolve, questions: Questions) -> Iterator[Item]:
    yield from distinct(told, deployment.proxy_url, resolved)
    yield from model(told, deployment.model)
    yield from connectors(told, transfers=questions.transfers)
    yield from form(told)
    yield from fits(deployment, questions.demands, questions.vocabulary)
    output = max((one.output_tokens for one in questions.demands), default=0)
    yield from generation_defaults(told, _generation_file(deployment), output)
    yield from _probes(told)


def _probes(told: Sequence[Told]) -> Iterator[Item]:
    """What verification needs to empty caches, and the harness to know the connectors' order."""
    closed = [one.name for one in told if one.resets is False]
    if closed:
        yield Item(
            "probes",
            Level.WARNS,
            f"{', '.join(closed)} cannot be told to empty their caches (no /reset_prefix_cache), so that offload tiers "
            "are not probed",
            "Launch with VLLM_SERVER_DEV_MODE=1 where nobody else can reach the servers",
        )
    else:
        yield Item("probes", Level.OK, "caches can be emptied, so that offload tiers can be probed")


def _generation_file(deployment: Deployment) -> Mapping[str, Any] | None:
    """The model's ``generation_config.json``; empty where a model that is here has none, None where none is read."""
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


async def _resolve(urls: Sequence[str]) -> Resolve:
    loop = asyncio.get_running_loop()

    async def addresses(host: str) -> tuple[str, frozenset[str]]:
        try:
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return host, frozenset({host})
        return host, frozenset(str(entry[4][0]) for entry in found)

    return dict(await asyncio.gather(*map(addresses, hosts(urls))))
