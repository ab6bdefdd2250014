"""Turns texts into token ids with the tokenizer of a server (``POST /tokenize``)."""

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp

from harness.facts import Deployment, Role
from harness.observe.vocabulary import token_ids

_AT_ONCE = 16
"""Requests in flight: enough to keep a server's tokenizer busy."""


async def tokenize(
    deployment: Deployment, headers: Mapping[str, str], texts: Sequence[str]
) -> list[tuple[int, ...]] | None:
    """The token ids of each text, without special tokens; None if no server tokenizes."""
    async with aiohttp.ClientSession(headers=headers) as session:
        for server in (*deployment.of(Role.DECODE), *deployment.of(Role.PREFILL)):
            model = server.model or deployment.model
            found = await _all(session, server.url, model, texts)
            if all(found):
                return found
    return None


async def _all(session: aiohttp.ClientSession, url: str, model: str, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The token ids of each text; empty from the first failure on."""
    found: list[tuple[int, ...]] = [()] * len(texts)
    numbered = iter(enumerate(texts))

    async def work() -> None:
        for number, text in numbered:
            found[number] = tuple(await token_ids(session, url, model, text))
            if not found[number]:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())
    return found
