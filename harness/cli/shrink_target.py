"""Which deployment a failing run is shrunk on.

1. What the command line names: URLs to attach to, or what to launch.
2. The run's own servers, where they still answer and serve the same model.
3. One launched like the run's, where the run launched its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp

from harness.cli.options import Options, parse, target_words
from harness.deploy.target import Target
from harness.errors import UsageError
from harness.facts import Deployment, Role
from harness.redact import REDACTED

_PATIENCE = aiohttp.ClientTimeout(total=5)
_OURS = ("--header", "--served-model-name", "--kv-cache-dtype")
"""Flags of the attach group that do not say where the deployment is."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A deployment."""

    target: Target
    words: tuple[str, ...]
    """The same as a command line."""
    why: str
    """Said to the user."""
    same: bool = False
    """Whether it is the run's own, so that what the run knew of it still holds."""


async def choose_target(options: Options, stored: Deployment, argv: tuple[str, ...]) -> Chosen:
    """``argv``: how the run was started. Raises UsageError where none of the three is to be had."""
    words = target_words(options.argv)
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if options.target.attachment is not None:
        return Chosen(options.target, words, "attached to what the command line names")
    if any(flag not in _OURS for flag in given):
        return Chosen(options.target, words, "launched as the command line says")
    if await _answer(stored, options):
        attached = (*await _urls(stored), *_kept(argv), *words)
        return Chosen(parse(["run", *attached]).target, attached, "attached to the run's own deployment", same=True)
    if stored.launched and "--deployment" not in argv and "--all-deployments" not in argv:
        like = (*target_words(argv), *words)
        return Chosen(parse(["run", *like]).target, like, "launched like the run's own, which is gone")
    if _has_lost_credentials(stored):
        raise UsageError(
            f"The run's servers ({', '.join(server.url for server in stored.servers)}) want credentials, and these "
            "are not stored. Name the servers again with them: --prefill-url and --decode-url (and --base-url)."
        )
    raise UsageError(
        f"The run's servers ({', '.join(server.url for server in stored.servers)}) do not answer, or serve another "
        "model now. Name a deployment like it: --prefill-url and --decode-url (and --base-url, its proxy), or flags "
        "that launch one, as --model or --connector."
    )


def _kept(argv: tuple[str, ...]) -> Iterator[str]:
    """What else the run was told of the servers that it attached to, credentials left out: they were not stored."""
    target = parse(["run", *target_words(argv)]).target
    told = {"--kv-cache-dtype": target.kv_cache_dtype, "--served-model-name": target.served_model_name}
    if target.attachment is not None:
        told["--model"] = target.model
    for flag, value in told.items():
        if value is not None:
            yield from (flag, value)


async def _urls(stored: Deployment) -> list[str]:
    """The proxy may have been the harness's own, which ended with the run: then it starts another."""
    flags = {Role.PREFILL: "--prefill-url", Role.DECODE: "--decode-url"}
    urls = [word for server in stored.servers for word in (flags[server.role], server.url)]
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        up = stored.proxy_url is not None and await _is_up(session, stored.proxy_url)
    return ["--base-url", stored.proxy_url, *urls] if up and stored.proxy_url else urls


async def _answer(stored: Deployment, options: Options) -> bool:
    """Whether all servers do, and serve the model: a port may have gone to somebody else."""
    if _has_lost_credentials(stored):
        return False
    async with aiohttp.ClientSession(headers=options.target.headers, timeout=_PATIENCE) as session:
        return all([await _serves(session, server.url, stored.model) for server in stored.servers])


def _has_lost_credentials(stored: Deployment) -> bool:
    return any(REDACTED in url for url in (stored.proxy_url or "", *(server.url for server in stored.servers)))


async def _is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health"):
            return True  # whatever it says: some proxies have no such page
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _serves(session: aiohttp.ClientSession, url: str, model: str) -> bool:
    try:
        async with session.get(f"{url}/v1/models") as response:
            return model in {entry["id"] for entry in (await response.json())["data"]}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError):
        return False
