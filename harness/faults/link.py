"""Disturbs the network before a server: a relay of the harness stands there, and passes bytes badly for a time."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.faults.fault import NoEvidence
from harness.faults.health import ANSWERS_WITHIN_S, until_answers, until_refuses
from harness.faults.link_evidence import evidence, missing
from harness.faults.relay_manner import How
from harness.faults.site import POLL_S, Relays, Site
from harness.history import Tolerated

SIDE_CHANNEL = "side-channel"
"""The link by which NIXL's decode side asks for the memory layout of prefill-0. vLLM (0.32) uses it once for each
engine of the peer, at the first request; KV and notifications travel by UCX, over connections of its own."""
_SIDE_CHANNEL_PATIENCE_S = 600.0
"""A decode server may make its next handshake long after the fault began: when prefill has been restarted."""
_KINDS = tuple(how.value for how in How if how is not How.PASS)
_HARD = (Tolerated.ERRORS, Tolerated.FAILED_TRANSFERS)


@dataclass(slots=True)
class Link:
    """Delay, throttle, cut or silence the link from the proxy to a server, or NIXL's side channel.

    Rule 1. Evidence is what the relay counted while the fault was at work: bytes held back, connections reset, bytes
            swallowed. If no byte came by, there is none.
    Rule 2. A link that delays or throttles loses nothing, so a deployment serves every request. NIXL's side channel is
            the exception: a handshake of more than 5 s has failed (vLLM 0.32).
    Rule 3. It is healed when the relay passes bytes again and the server answers through it.
    """

    kind: ClassVar[str] = "link"
    link: str = "decode-0"
    """``prefill-0``, ``decode-0``, ... : the link from the proxy to this server; ``side-channel``."""
    how: str = "cut"
    """``delay``, ``throttle``, ``cut``, ``half-open`` or ``idle``; see :class:`How`."""
    ms: float = 200.0
    """``delay``: milliseconds that each byte waits, each way."""
    rate: float = 50_000.0
    """``throttle``: bytes a second, each way."""
    idle: float = 1.0
    """``idle``: seconds of silence after which a connection is forgotten."""
    tolerates: tuple[Tolerated, ...] = field(default=_HARD, init=False)

    def __post_init__(self) -> None:
        if self.how not in _KINDS:
            raise ValueError(f"how={self.how}: a link can {', '.join(_KINDS)}.")
        if min(self.ms, self.rate, self.idle) <= 0:
            raise ValueError("ms, rate and idle are above 0.")
        lossless = self.how in (How.DELAY, How.THROTTLE) and self.link != SIDE_CHANNEL
        self.tolerates = () if lossless else _HARD

    @property
    def relayed(self) -> str:
        """The link that needs a relay."""
        return self.link

    @property
    def target(self) -> str:
        """The link's name."""
        return self.link

    @property
    def text(self) -> str:
        """What it does."""
        figure = {How.DELAY: f" by {self.ms:g} ms", How.THROTTLE: f" to {self.rate:,.0f} bytes/s"}
        figure[How.IDLE] = f": forget connections after {self.idle:g} s of silence"
        return f"{self.how} on the link before {self.link}{figure.get(How(self.how), '')}"

    async def strike(self, site: Site) -> str:
        """Tell the relay; evidence: what it counts from then on."""
        relays = self._relays(site)
        if self._refuses:
            await self._until(site, lambda counts: bool(counts["open"]), "no connection was open that could be reset")
        await relays.tell(self.link, **self._order())
        counts = await self._until(site, lambda counts: not missing(self.how, counts), "")
        if self._refuses and not await until_refuses(site, relays.urls[self.link], site.patience):
            raise NoEvidence(f"the relay before {self.link} still accepts connections")
        return evidence(self.how, counts) + ("; a new one is refused" if self._refuses else "")

    async def heal(self, site: Site) -> str:
        """Let the relay pass bytes; observed by an answer of the server through it."""
        if site.relays is None:
            return ""
        counts = await site.relays.tell(self.link, how=How.PASS)
        if self.how in (How.CUT, How.HALF_OPEN) and counts["passed"]:
            raise NoEvidence(f"{counts['passed']:,.0f} bytes passed the relay before {self.link} during the fault")
        url = site.relays.urls[self.link]
        answers = await (
            _greets(site, url) if self.link == SIDE_CHANNEL else until_answers(site, url, site.long_patience)
        )
        if not answers:
            raise NoEvidence(f"{self.link} did not answer through the relay within {site.long_patience:.0f} s")
        return f"{evidence(self.how, counts)} in all; now {self.link} answers through the relay"

    @property
    def _refuses(self) -> bool:
        """Whether a cut link does not even listen.

        Handshakes on the side channel are short: hardly one is there to be reset, and only a relay that listens counts
        the attempts.
        """
        return self.how == How.CUT and self.link != SIDE_CHANNEL

    def _relays(self, site: Site) -> Relays:
        if site.relays is None or self.link not in site.relays.urls:
            raise UsageError(f"There is no relay before {self.link}.")
        return site.relays

    def _order(self) -> dict[str, object]:
        match How(self.how):
            case How.DELAY:
                return {"how": self.how, "seconds": self.ms / 1000}
            case How.THROTTLE:
                return {"how": self.how, "rate": self.rate}
            case How.IDLE:
                return {"how": self.how, "seconds": self.idle}
            case How.CUT:
                return {"how": self.how, "refuses": self._refuses}
            case _:
                return {"how": self.how}

    async def _until(self, site: Site, holds: Callable[[Mapping[str, float]], bool], why: str) -> Mapping[str, float]:
        """The counts as soon as they hold. Raises NoEvidence if they do not in time; ``why``: what is missing."""
        relays, patience = self._relays(site), site.patience
        deadline = site.clock.now() + (_SIDE_CHANNEL_PATIENCE_S if self.link == SIDE_CHANNEL else patience)
        while not holds(counts := await relays.counted(self.link)):
            if site.clock.now() >= deadline:
                raise NoEvidence(f"the relay before {self.link}: {why or missing(self.how, counts)}")
            await site.clock.sleep(POLL_S)
        return counts


async def _greets(site: Site, url: str) -> bool:
    """Whether the server at the other end of the relay sends its first byte: ZMTP's peers greet each other at once."""
    parts = urlsplit(url)
    deadline = site.clock.now() + site.patience
    while site.clock.now() < deadline:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                try:
                    if await reader.read(1):
                        return True
                finally:
                    writer.close()
        await site.clock.sleep(POLL_S)
    return False
