"""Tells a deployment's relays, which run in a process of their own, what to do, and asks what they counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from harness.faults.fault import NoEvidence

_LIMIT = aiohttp.ClientTimeout(total=10)


def control_of(control: str, urls: Mapping[str, str], headers: Mapping[str, str]) -> "RelayControl | None":
    """The control of a deployment's relays; None if ``control``, their address, is empty: there are none."""
    return RelayControl(control, urls, headers) if control else None


@dataclass(frozen=True, slots=True)
class RelayControl:
    """The relays behind one control address."""

    control: str
    """The URL of the relays' process."""
    urls: Mapping[str, str]
    """The URL at which each relay stands before its server, by the relay's name."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers without which the servers may not answer."""

    async def tell(self, name: str, **order: object) -> Mapping[str, float]:
        """Tell a relay what to do; returns what it counted until then. Raises NoEvidence if it does not answer."""
        return await self._ask("POST", name, order)

    async def counted(self, name: str) -> Mapping[str, float]:
        """What a relay counted since it was told last. Raises NoEvidence if it does not answer."""
        return await self._ask("GET", name, None)

    async def reads_metrics(self, name: str) -> bool:
        """Whether ``/metrics`` can be read through a relay."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_LIMIT, headers=self.headers) as session,
                session.get(f"{self.urls[name]}/metrics") as answer,
            ):
                return answer.status == 200 and bool(await answer.read())
        except (aiohttp.ClientError, OSError):
            return False

    async def _ask(self, method: str, name: str, order: Mapping[str, object] | None) -> Mapping[str, float]:
        url = f"{self.control}/relays/{name}"
        try:
            async with (
                aiohttp.ClientSession(timeout=_LIMIT) as session,
                session.request(method, url, json=order) as answer,
            ):
                if answer.status != 200:
                    raise NoEvidence(f"the relay {name} refused: {(await answer.text())[:200]}")
                counted: Mapping[str, float] = await answer.json()
                return counted
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoEvidence(f"the relay {name} does not answer: {str(error) or type(error).__name__}") from None
