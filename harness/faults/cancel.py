"""Clients that leave before the end of their answers."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import ClassVar

from harness.faults.abandoned import Served, read_served, until_idle
from harness.faults.fault import NoEvidence
from harness.faults.load_watch import LoadWatch
from harness.faults.site import Site
from harness.history import Tolerated
from harness.scenario import Moment, Request

_WORDS = {
    Moment.FIRST_TOKEN: "before their first token",
    Moment.TRANSFER: "when prefill has usually answered and decode fetches the KV",
    Moment.STREAM: "after some of their tokens",
}
_AFTER_PREFILL = ("handover", "decode")
"""The stages at which the harness's own proxy counts clients as gone (``pd_proxy_client_gone``) when prefill has
answered: decode was asked, or has begun to answer, if only with the head, which vLLM sends before it has the KV."""
_DRAWS = 1 << 64


@dataclass(slots=True)
class Cancel:
    """Let a share of the load's clients close their connections before the end of their answers.

    Rule 1: which clients leave, and when, follows from the seed and the request's id alone.
    Rule 2: evidence is that connections were closed at the moment that was asked for, and that the servers noticed:
            decode did not finish all of these requests, or counted some as aborted, and all servers are idle again.
            Where the harness's own proxy is asked, it must have counted clients as gone at that moment.
    Rule 3: nothing is tolerated of requests whose clients stayed.
    """

    kind: ClassVar[str] = "cancel"
    share: float = 0.1
    moment: str = "stream"
    seed: int = 0
    tolerates: tuple[Tolerated, ...] = ()
    _before: Served | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError("share is a part of the requests: above 0, at most 1")
        if self.moment not in list(Moment):
            raise ValueError(f"moment is one of {', '.join(Moment)}")

    @property
    def target(self) -> str:
        """The load."""
        return "load"

    @property
    def text(self) -> str:
        """What it does."""
        return f"let {self.share:.0%} of the clients leave {_WORDS[Moment(self.moment)]}"

    def changed(self, request: Request) -> Request:
        """The request, whose client leaves if it is drawn; one that leaves already leaves as it would have."""
        moment = Moment(self.moment)
        if request.leaves is not None or self._drawn(request, "leaves") >= self.share:
            return request
        if moment is not Moment.STREAM:
            return replace(request, leaves=moment, leaves_after=self._drawn(request, "when"))
        # A whole body has no first tokens, and an answer of one token nothing that comes later.
        if not request.stream or request.sampling.max_tokens <= 1:
            return request
        return replace(request, leaves=moment, leaves_after=1 + int(self._drawn(request, "when") * _most(request)))

    def _drawn(self, request: Request, what: str) -> float:
        """A number of [0, 1) for this request."""
        text = f"{self.seed}/{what}/{request.request_id}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / _DRAWS

    async def before(self, site: Site) -> None:
        """Read what the servers have finished before the load."""
        self._before = await read_served(site)

    async def strike(self, site: Site) -> str:
        """Wait for the end of the load; evidence: connections that were closed, and what servers did of these."""
        load = site.load
        if load is None:
            raise NoEvidence("no load is sent")
        await load.over.wait()
        closed = self._closed(load)
        idle_after = await until_idle(site)
        after = await read_served(site)
        if self._before is None or after is None or idle_after is None:
            raise NoEvidence(f"{closed}; whether the servers noticed is not known: their metrics could not be read")
        grown = after.since(self._before)
        if grown is None:
            raise NoEvidence(f"{closed}; what decode finished is not known: it was restarted, and counts from zero")
        return f"{closed}; {self._noticed(load, grown)}; all were idle {idle_after:.1f} s later"

    async def heal(self, site: Site) -> str:  # noqa: ARG002 - as for all faults
        """Nothing is to be undone: no client leaves when the load is over."""
        return "the load is over, and no client leaves any more"

    def _closed(self, load: LoadWatch) -> str:
        tokens = [ended.output_tokens for request, ended in load.left if request.leaves == self.moment]
        if not tokens:
            raise NoEvidence(f"none of {load.sent:,} clients left {_WORDS[Moment(self.moment)]}")
        received = f"{min(tokens)} to {max(tokens)}" if min(tokens) < max(tokens) else f"{tokens[0]}"
        return f"{len(tokens):,} of {load.sent:,} clients closed their connections after {received} tokens"

    def _noticed(self, load: LoadWatch, grown: Served) -> str:
        """What the servers did of the requests whose clients left. Raises NoEvidence if they noticed nothing."""
        left = sum(request.sampling.n or 1 for request, _ in load.left)
        # What else decode finished were answers to clients that had left.
        unfinished = left - max(grown.finished - load.answers, 0)
        text = f"decode did not finish {max(unfinished, 0):,} of these requests ({grown.aborted:,} counted as aborted)"
        if unfinished <= 0 and not grown.aborted:
            raise NoEvidence(f"decode finished all {left:,} requests whose clients had left, as if they had stayed")
        if not grown.gone:
            return text
        stages = ", ".join(f"{count:,} in {stage}" for stage, count in grown.gone.items() if count)
        if (seen := _seen(load, grown, Moment(self.moment))) <= 0:
            raise NoEvidence(f"the proxy saw no client leave {_WORDS[Moment(self.moment)]}: {stages or 'none left'}")
        return f"{text}; the proxy saw clients leave: {stages}, of which at least {seen:,} at the moment asked for"


def _seen(load: LoadWatch, grown: Served, moment: Moment) -> int:
    """How many clients the harness's own proxy certainly saw leave at this moment. It sends no head before the body."""
    later = sum(grown.gone.get(stage, 0) for stage in _AFTER_PREFILL)
    with_head = sum(ended.status is not None for _, ended in load.left)
    match moment:
        case Moment.STREAM:
            return grown.gone.get("decode", 0)
        case Moment.TRANSFER:
            return later - with_head
        case Moment.FIRST_TOKEN:
            return sum(grown.gone.values()) - with_head


def _most(request: Request) -> int:
    """Tokens after which the client may leave, at most: one fewer than the answer may have."""
    return request.sampling.max_tokens - 1
