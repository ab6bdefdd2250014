"""Combines several connectors into one, as vLLM 0.32.0's ``MultiConnector`` does.

Every connector stores. The first connector that has tokens for a request loads them; the others are called with zero
tokens, and so P is notified even if D took the KV from its offload tier. A request waits as long as a connector's
lookup has no answer yet.
"""

from typing import Any, Protocol

from harness.sim.sequence import Sequence


class KVConnector(Protocol):
    """The interface through which an engine uses a connector."""

    label: str
    """The cache tier that the connector's hits come from, as vLLM's metrics label it."""

    def arrived(self, sequence: Sequence) -> None:
        """Take note of a new request."""

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Return the tokens that can be loaded beyond those computed; None means: ask again later."""

    def allocated(self, sequence: Sequence, external: int) -> None:
        """Plan to load ``external`` tokens into the blocks that the request now has."""

    def run(self) -> list[tuple[Sequence, bool]]:
        """Carry out the planned loads; return each request whose load ended, and whether the load failed."""

    def finished(self, sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Return whether to hold the request's blocks, and the ``kv_transfer_params`` of the answer."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do something now."""


class Connectors:
    """A server's connectors, in order; there may be none."""

    def __init__(self, members: tuple[KVConnector, ...]) -> None:
        self.members = members

    def _for(self, sequence: Sequence) -> list[KVConnector]:
        return [member for member in self.members if member.label not in sequence.ignored_connectors]

    def arrived(self, sequence: Sequence) -> None:
        """Announce a new request to every connector."""
        for member in self.members:
            member.arrived(sequence)

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Return the tokens that the first connector with any can load; None means: ask again later."""
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
        """Let the chosen connector plan its load; the others are called with zero tokens."""
        for member in self._for(sequence):
            member.allocated(sequence, external if member is sequence.chosen else 0)

    def run(self) -> list[tuple[Sequence, bool]]:
        """Carry out the planned loads of every connector, in order."""
        return [result for member in self.members for result in member.run()]

    def finished(self, sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Hold the blocks if any connector does, and answer with the first parameters that any returns."""
        held, params = False, None
        for member in self.members:
            holds, answer = member.finished(sequence)
            held |= holds
            params = answer if params is None else params
        return held, params

    @property
    def has_work(self) -> bool:
        """Whether any connector has something to do."""
        return any(member.has_work for member in self.members)
