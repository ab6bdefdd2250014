"""Lets requests expire on a prefill server: decode is stopped for longer than their lease."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from harness.facts import Role
from harness.faults.fault import NoEvidence
from harness.faults.pause import Pause
from harness.faults.site import POLL_S, Site
from harness.history import Tolerated

_PATIENCE_S = 60.0
"""Seconds within which requests must expire: two of vLLM's usual leases (30 s)."""


@dataclass(slots=True)
class Lease:
    """Stop a decode server's engine until requests that wait for it expire on prefill, whose blocks others then take.

    Rule 1. A stopped server renews no lease. Evidence is that it is stopped, as for ``pause``, and that prefill counted
            expired requests (``vllm:nixl_num_kv_expired_reqs``) since it was: those that another fault, or clients that
            left, let expire before are none.
    Rule 2. Prefill is kept busy beside the load (churn.py), so that it notices, and gives the blocks away. Evidence is
            that it computes other prompts after it counted the expired ones.
    Rule 3. Decode must then read the blocks, or say that it has: prefill must have counted notifications after expiry,
            unless another counter is named (``provokes``).
    Rule 4. A request whose blocks are gone may fail with an error or be computed again. An answer made from another
            request's KV is as wrong as ever.
    """

    kind: ClassVar[str] = "lease"
    churns: ClassVar[bool] = True
    provokes: ClassVar[str] = "nixl_after_expiry"
    server: str = "decode-0"
    tolerates: tuple[Tolerated, ...] = (
        Tolerated.ERRORS,
        Tolerated.FAILED_TRANSFERS,
        Tolerated.UNREAD_METRICS,
    )
    _pause: Pause | None = field(default=None, init=False)
    _before: Mapping[str, float] = field(default_factory=dict, init=False)

    @property
    def target(self) -> str:
        """The server's name."""
        return self.server

    @property
    def text(self) -> str:
        """What it does."""
        return f"stop the engine of {self.server} with SIGSTOP until requests that wait for it have expired on prefill"

    async def strike(self, site: Site) -> str:
        """Stop the server, and wait until requests have expired."""
        self._pause = Pause(self.server, part="engine")
        began = site.clock.now()
        stopped = await self._pause.strike(site)
        self._before = await _expired(site)
        while not (grown := self._grown(await _expired(site))):
            if site.clock.now() - began >= _PATIENCE_S:
                raise NoEvidence(
                    f"no prefill server counted an expired request within {_PATIENCE_S:.0f} s, although {self.server} "
                    "was stopped: is the lease longer (kv_lease_duration)?"
                )
            await site.clock.sleep(POLL_S)
        waited = site.clock.now() - began
        taken = await _taken(site, next(iter(grown)))
        return (
            f"{stopped}; {waited:.1f} s later {_listed(grown)}, and computed {taken:,.0f} tokens of other prompts since"
        )

    async def heal(self, site: Site) -> str:
        """Let the server go on."""
        return f"nothing was done to {self.server}" if self._pause is None else await self._pause.heal(site)

    def _grown(self, now: Mapping[str, float]) -> Mapping[str, float]:
        # A server that could not be read when decode stopped counts from its first reading.
        self._before = {**now, **self._before}
        grown = {name: count - self._before[name] for name, count in now.items()}
        return {name: count for name, count in grown.items() if count > 0}


async def _expired(site: Site) -> Mapping[str, float]:
    """Requests that expired on each prefill server since its start, as far as that can be read."""
    servers = [server.name for server in site.deployment.of(Role.PREFILL)]
    found = {name: await site.value(name, "nixl_expired") for name in servers}
    return {name: count for name, count in found.items() if count is not None}


async def _taken(site: Site, server: str) -> float:
    """Wait until a prefill server computes prompts, whose blocks may be the expired ones; how many tokens it computed.

    Raises NoEvidence if it computes none within the patience.
    """
    began, before = site.clock.now(), await site.value(server, "prompt_tokens")
    while not (grown := (await site.value(server, "prompt_tokens") or 0.0) - (before or 0.0)) > 0:
        if before is None or site.clock.now() - began >= site.patience:
            raise NoEvidence(f"{server} has computed no prompt since requests expired: nobody has taken their blocks")
        await site.clock.sleep(POLL_S)
    return grown


def _listed(grown: Mapping[str, float]) -> str:
    return ", ".join(f"{name} had counted {count:,.0f} expired requests" for name, count in grown.items())
