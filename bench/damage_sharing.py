"""Undamaged requests that share damaged blocks: they may read another request's damage from decode's prefix cache.

A decode server keeps the blocks that it received, damaged ones too, and gives them to any later request that begins
with the same tokens. So the harness is right to name such a request, although the plugin did not strike it. A request
shares a damaged block if

- its prompt begins with the same tokens as the damaged request's prompt, up to and including that block, which is full;
- one more token of its prompt follows: the engine computes a prompt's last token anew and looks up only what is before;
- it was sent after the damaged request, to the same decode server and under the same ``cache_salt``.

When exactly the damage was done is not recorded. A request that was sent while the damaged one was served may have come
before it, so that it is said to share the block, not to have read it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.sabotage import Blow
from harness.facts import Deployment, Role
from harness.history import History
from harness.reports.measured import under_test
from harness.store import load_run

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """A request of the load as the decode server's prefix cache sees it."""

    tokens: Tokens
    """Of the prompt."""
    sent: float
    """In seconds, on the client's clock."""
    decode_server: str | None
    """None: the proxy did not say."""
    salt: str | None
    block_size: int | None
    """The decode server's, in tokens; None if it is unknown or the server has no prefix cache: nothing is shared."""


def sharing_in(run: Path, blows: Sequence[Blow]) -> dict[str, str]:
    """:func:`sharing`, of a stored run's directory. Raises UsageError if the directory holds no run."""
    return sharing(served_in(*load_run(run)), blows) if blows else {}


def served_in(deployment: Deployment, history: History) -> dict[str, Served]:
    """The load's requests by id, without those whose prompt's tokens are unknown."""
    decode = deployment.of(Role.DECODE)
    sizes = {server.url: server.block_size for server in decode if server.prefix_caching is not False}
    only = decode[0].url if len(decode) == 1 else None
    found: dict[str, Served] = {}
    for one in under_test(history):
        server, tokens = one.ended.decode_server or only, one.prompt_token_ids
        if tokens:
            salt, size = one.request.cache_salt, sizes.get(server or "")
            found[one.request.request_id] = Served(tokens, one.sent.at, server, salt, size)
    return found


def sharing(served: Mapping[str, Served], blows: Sequence[Blow]) -> dict[str, str]:
    """For each undamaged request that shares a damaged block, the first damaged request that it shares it with."""
    struck = {blow.request for blow in blows}
    others = {who: one for who, one in served.items() if who not in struck}
    found: dict[str, str] = {}
    for blow in blows:
        for who in _sharing_with(blow, served, others):
            found.setdefault(who, blow.request)
    return found


def _sharing_with(blow: Blow, served: Mapping[str, Served], others: Mapping[str, Served]) -> Iterator[str]:
    damaged = served.get(blow.request)
    if damaged is None or damaged.block_size is None:
        return
    owner = served.get(blow.owner or "")
    upto = _end_of_damage(blow, damaged.tokens, damaged.block_size, owner.tokens if owner else ())
    if upto is not None:
        yield from (who for who, one in others.items() if _shares(one, damaged, upto))


def _end_of_damage(blow: Blow, tokens: Tokens, size: int, owner: Tokens) -> int | None:
    """Tokens up to the end of the first damaged block; None if no block is damaged.

    Another request's block is the right one if that request begins with the same tokens, and no damage then.
    """
    blocks: Iterable[int] = blow.details.get("blocks", ())
    ends = ((block + 1) * size for block in blocks)
    return min((end for end in ends if not owner or owner[:end] != tokens[:end]), default=None)


def _shares(one: Served, damaged: Served, upto: int) -> bool:
    same_cache = (one.decode_server, one.salt) == (damaged.decode_server, damaged.salt)
    # A block that is not full ends beyond the damaged prompt, so that no other prompt is equal to it up to there.
    begins_alike = len(one.tokens) > upto and one.tokens[:upto] == damaged.tokens[:upto]
    return same_cache and begins_alike and one.sent > damaged.sent
