"""One run of the damage bench: the harness's result compared with the ledger of the damage. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.sabotage import Blow

CLEAN, MIXED = "clean", "mixed"

_NO_ACCUSATION = {"unverified", "doubtful"}
"""Kinds of findings that say that something is unknown, and not that it is wrong."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One damaged request, and what the harness said about it."""

    request: str
    kind: str
    named: bool
    doubtful: bool
    unanswered: bool
    """The engine did not answer it properly: damage can make values that no answer can hold."""
    owner: str | None
    """The request whose KV it got."""
    owner_named: str | None
    """The request whose KV it got according to the harness."""


@dataclass(frozen=True, slots=True)
class Sharer:
    """An undamaged request that may have read a damaged request's block (damage_sharing.py)."""

    request: str
    damaged: str
    """The damaged request."""
    said: str | None
    """What the harness said about the sharer; None: it did not name it."""
    owner: str | None
    """The request whose KV the damaged request got."""
    owner_named: str | None
    """The request whose KV the sharer got according to the harness."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Shares are of the load's own tokens and time; None if they were not measured."""

    kind: str
    seed: int
    requests: int
    exit_code: int
    verdict: str
    seconds: float
    """Of the whole process, from its start to its end."""
    strikes: tuple[Strike, ...] = ()
    falsely_named: Mapping[str, str] = field(default_factory=dict)
    """What the harness said, by the request that it said it about."""
    sharing: tuple[Sharer, ...] = ()
    """Named or not, they are neither in ``strikes`` nor in ``falsely_named``."""
    token_share: float | None = None
    time_share: float | None = None

    @property
    def named(self) -> tuple[Strike, ...]:
        """The damaged requests that the harness named."""
        return tuple(one for one in self.strikes if one.named)

    @property
    def missed(self) -> tuple[Strike, ...]:
        """The damaged requests that it did not name."""
        return tuple(one for one in self.strikes if not one.named)

    @property
    def doubtful(self) -> tuple[Strike, ...]:
        """The damaged requests that it called doubtful without naming them."""
        return tuple(one for one in self.missed if one.doubtful)

    @property
    def sharing_named(self) -> tuple[Sharer, ...]:
        """The requests that share a damaged block and that the harness named."""
        return tuple(one for one in self.sharing if one.said is not None)

    @property
    def wrong_owners(self) -> tuple[Strike | Sharer, ...]:
        """The damaged requests, and those that share their blocks, said to have got KV that they did not get."""
        affected = (*self.strikes, *self.sharing)
        return tuple(one for one in affected if one.owner_named is not None and one.owner_named != one.owner)

    @property
    def as_expected(self) -> bool:
        """Whether a clean run is valid, or some requests were damaged and they and nobody else were named."""
        if self.kind == CLEAN:
            return self.exit_code == 0
        return bool(self.strikes) and not self.missed and not self.falsely_named and self.exit_code == 1

    def as_json(self) -> dict[str, Any]:
        """All fields, and the counts."""
        counts = {"damaged": len(self.strikes), "named": len(self.named), "missed": len(self.missed)}
        counts |= {"sharing_named": len(self.sharing_named)}
        counts |= {"doubtful_among_missed": len(self.doubtful), "wrong_owners": len(self.wrong_owners)}
        return {**asdict(self), **counts}


def row(  # noqa: PLR0913 - a run has as many facts
    kind: str,
    seed: int,
    result: Mapping[str, Any],
    blows: Sequence[Blow],
    *,
    exit_code: int,
    seconds: float,
    sharing: Mapping[str, str],
) -> Row:
    """Compare a run's ``result.json`` (empty if the run wrote none) with its damage.

    ``sharing`` has the undamaged requests that share a damaged block, each with the damaged request.

    A request is named if a finding of the outputs check says that it is wrong, or that a cache's blocks of its prompt
    are. Its first finding counts.
    """
    accusing = [one for one in _findings(result, "outputs") if one["kind"] not in _NO_ACCUSATION]
    named = {_about(one): one for one in reversed(accusing)}
    doubtful = {_about(one) for one in _findings(result, "outputs") if one["kind"] == "doubtful"}
    unanswered = {_about(one) for one in _findings(result, "completion")}
    struck = {blow.request: blow for blow in blows}
    cost: Mapping[str, float] = result.get("verification_cost", {})
    return Row(
        kind=kind,
        seed=seed,
        requests=result.get("num_prompts", 0),
        exit_code=exit_code,
        verdict=result.get("verdict", "none"),
        seconds=seconds,
        strikes=tuple(_strike(blow, named, doubtful, unanswered) for blow in blows),
        falsely_named={who: one["text"] for who, one in sorted(named.items()) if who not in {*struck, *sharing}},
        sharing=tuple(_sharer(who, struck[damaged], named.get(who)) for who, damaged in sorted(sharing.items())),
        token_share=_share(cost, "tokens", "load_tokens"),
        time_share=_share(cost, "seconds", "load_seconds"),
    )


def _strike(
    blow: Blow, named: Mapping[str, Mapping[str, Any]], doubtful: Collection[str], unanswered: Collection[str]
) -> Strike:
    who = blow.request
    owner = named[who]["owner"] if who in named else None
    return Strike(who, blow.kind, who in named, who in doubtful, who in unanswered, blow.owner, owner)


def _sharer(who: str, blow: Blow, finding: Mapping[str, Any] | None) -> Sharer:
    said, owner_named = (finding["text"], finding["owner"]) if finding else (None, None)
    return Sharer(who, blow.request, said, blow.owner, owner_named)


def _findings(result: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [finding for check in result.get("checks", ()) if check["name"] == name for finding in check["findings"]]


def _about(finding: Mapping[str, Any]) -> str:
    """The request of the load that a finding is about; what it is about otherwise, such as a server."""
    who: str = finding["request"] or finding["subject"]
    return who


def _share(cost: Mapping[str, float], part: str, whole: str) -> float | None:
    return cost[part] / cost[whole] if cost.get(whole) else None
