"""Chooses the deployment on which a failing run is shrunk.

1. The deployment that the command line describes: URLs to attach to, or flags that launch.
2. Otherwise the servers of the run, if they still answer and serve the same model.
3. Otherwise a deployment launched like that of the run, if the run had launched its deployment.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.cli.options import Options, parse
from harness.cli.target_options import target_words
from harness.deploy.target import Target
from harness.errors import UsageError
from harness.facts import Deployment, Role
from harness.observe.answering import all_serve, answers
from harness.redact import REDACTED

_NOT_LAUNCHING = ("--header", "--served-model-name", "--kv-cache-dtype")
"""Flags of the attach group that do not name a server."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A deployment to shrink on."""

    target: Target
    words: tuple[str, ...]
    """The target as words of a command line."""
    why: str
    """The reason for the choice, for the user."""
    same: bool = False
    """Whether the run had the same servers, so that its facts still hold."""


async def choose_target(options: Options, stored: Deployment, argv: tuple[str, ...]) -> Chosen:
    """Choose by the rules above; ``argv``: the command line of the run. Raises UsageError if no rule applies."""
    words = target_words(options.argv)
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if options.target.attachment is not None:
        return Chosen(options.target, words, "attached to the servers that the command line names")
    if any(flag not in _NOT_LAUNCHING for flag in given):
        return Chosen(options.target, words, "launched as the command line says")
    urls = [server.url for server in stored.servers]
    lost = any(REDACTED in url for url in (stored.proxy_url or "", *urls))
    if not lost and await all_serve(urls, stored.model, options.target.headers):
        attached = (*await _attach_words(stored), *_kept(argv), *words)
        return Chosen(parse(["run", *attached]).target, attached, "attached to the run's own deployment", same=True)
    if stored.launched and "--deployment" not in argv and "--all-deployments" not in argv:
        like = (*target_words(argv), *words)
        return Chosen(parse(["run", *like]).target, like, "launched like the run's own, which is gone")
    if lost:
        raise UsageError(
            f"The run's servers ({', '.join(urls)}) need credentials, and credentials are not stored. Name the servers "
            "again with their credentials: --prefill-url and --decode-url (and --base-url)."
        )
    raise UsageError(
        f"The run's servers ({', '.join(urls)}) do not answer, or serve another model now. Name a deployment like it: "
        "--prefill-url and --decode-url (and --base-url, its proxy), or flags that launch one, as --model or "
        "--connector."
    )


def _kept(argv: tuple[str, ...]) -> Iterator[str]:
    """The run's other flags about its servers. Headers are left out, since credentials were not stored."""
    target = parse(["run", *target_words(argv)]).target
    kept = {"--kv-cache-dtype": target.kv_cache_dtype, "--served-model-name": target.served_model_name}
    if target.attachment is not None:
        kept["--model"] = target.model
    for flag, value in kept.items():
        if value is not None:
            yield from (flag, value)


async def _attach_words(stored: Deployment) -> list[str]:
    """Flags that attach to the run's servers and, if it still answers, to the run's proxy."""
    flags = {Role.PREFILL: "--prefill-url", Role.DECODE: "--decode-url"}
    urls = [word for server in stored.servers for word in (flags[server.role], server.url)]
    up = stored.proxy_url is not None and await answers(stored.proxy_url)
    return ["--base-url", stored.proxy_url, *urls] if up and stored.proxy_url else urls
