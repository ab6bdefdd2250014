"""Several connectors as one. Semantics of vLLM 0.32.0's ``MultiConnector``.

The first connector that has tokens for a request loads them; every connector saves. The others are told of the
request's blocks with zero tokens: so P is notified although D took the KV from its offload tier. A connector that
cannot say yet makes the request wait.
"""

from typing import Any, Protocol

from harness.sim.sequence import Sequence
from harness.sim.transfer import Nixl


class KVConnector(Protocol):
    """What an engine asks of a connector."""

    label: str
    """The cache tier that its hits come from, as vLLM labels it."""

    def arrived(self, sequence: Sequence) -> None:
        """A new request."""
        ...

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Tokens it can load beyond those computed; None: ask again later."""
        ...

    def allocated(self, sequence: Sequence, external: int) -> None:
        """The request has its blocks; load ``external`` tokens into them."""
        ...

    def run(self) -> list[tuple[Sequence, bool]]:
        """Carry out loads; who has got something, and whether it failed."""
        ...

    def finished(self, sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Whether the blocks must be held, and kv_transfer_params to answer."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether a step would do something now."""
        ...


class Connectors:
    """An ordered choice of them; none at all is allowed."""

    def __init__(self, members: tuple[KVConnector, ...]) -> None:
        self.members = members

    def _for(self, sequence: Sequence) -> list[KVConnector]:
        """All of them, unless a planted bug ignores one."""
        return [member for member in self.members if member.label not in sequence.without]

    def arrived(self, sequence: Sequence) -> None:
        """A new request."""
        for member in self.members:
            member.arrived(sequence)

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Tokens that the first connector with any can load."""
        chosen, tokens = None, 0
        for member in self._for(sequence):
            found = member.matched(sequence, computed)
            if found is None:
                return None
            if found and not tokens:
                chosen, tokens = member, found
        if chosen is not None:
            sequence.chosen = chosen
        return tokens

    def allocated(self, sequence: Sequence, external: int) -> None:
        """The request has its blocks."""
        for member in self._for(sequence):
            member.allocated(sequence, external if member is sequence.chosen else 0)

    def run(self) -> list[tuple[Sequence, bool]]:
        """Carry out what was planned, in order."""
        return [result for member in self.members for result in member.run()]

    def finished(self, sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Held if any of them holds; their parameters do not overlap."""
        held, params = False, None
        for member in self.members:
            holds, answer = member.finished(sequence)
            held |= holds
            params = answer if params is None else params
        return held, params

    @property
    def nixl(self) -> Nixl | None:
        """The one that transfers between servers."""
        return next((member for member in self.members if isinstance(member, Nixl)), None)

    @property
    def has_work(self) -> bool:
        """Whether any of them has something to do."""
        return any(member.has_work for member in self.members)
