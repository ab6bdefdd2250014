"""Lets a server turn the texts of a load into token ids, before the load is sent."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

from harness.facts import Deployment
from harness.observe.tokenizing import tokenize


class Texts(Protocol):
    """A load that may have texts."""

    def texts(self) -> Sequence[str]:
        """The texts; most loads have none."""
        ...

    def with_tokens(self, tokens: Sequence[Sequence[int]] | None) -> Self:
        """The load with the token ids of its texts; None: no server tokenizes."""
        ...


L = TypeVar("L", bound=Texts)


async def with_tokens(load: L, deployment: Deployment, headers: Mapping[str, str]) -> L:
    """The load, ready to be sent. Raises UsageError if it needs a server that tokenizes, and there is none."""
    texts = load.texts()
    return load.with_tokens(await tokenize(deployment, headers, texts)) if texts else load
