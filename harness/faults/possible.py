"""Refuses faults that the deployment of a command line does not allow, before anything is started or sent.

The harness ends, stops and restarts only processes that it started. Of a deployment to which it attached, that is the
proxy at most. It relays a link only if the one who connects is told of the relay: its own proxy, or, on the side
channel, decode servers that it launched.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.errors import UsageError
from harness.faults.link import SIDE_CHANNEL
from harness.faults.plan import FaultPlan

_PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Reach:
    """What of a deployment faults may be about."""

    servers: Collection[str]
    """The servers' names: ``prefill-0``, ``decode-0``, ..."""
    launched: bool
    """Whether the harness starts the servers."""
    own_proxy: bool
    """Whether the harness starts the proxy."""

    def require(self, plans: Iterable[FaultPlan]) -> None:
        """Raise UsageError if one of the faults cannot be caused."""
        for plan in plans:
            if why := self._impossible(plan):
                raise UsageError(f"--fault {plan.fault.kind}: {why}.")

    def _impossible(self, plan: FaultPlan) -> str:
        """Why not, as a sentence without its end; empty if it can be caused."""
        link, server = getattr(plan.fault, "link", None), getattr(plan.fault, "server", None)
        if link is not None:
            return self._no_link(link)
        if server is None:
            return ""
        # The metrics that the harness reads pass through a relay of its own, whoever started the server.
        process = plan.relayed is None
        known = (*self.servers, _PROXY) if process else self.servers
        if server not in known:
            return f"there is no {server}; there are {', '.join(known)}"
        return self._no_process(server) if process else ""

    def _no_link(self, link: str) -> str:
        known = (*self.servers, SIDE_CHANNEL)
        if link not in known:
            return f"there is no link before {link}; there are {', '.join(known)}"
        if link == SIDE_CHANNEL and not self.launched:
            return (
                "attached decode servers cannot be told of a relay before the side channel: leave out --prefill-url "
                "and --decode-url, so that the harness launches the servers"
            )
        if link != SIDE_CHANNEL and not self.own_proxy:
            return "another proxy cannot be told of a relay: leave out --base-url, so that the harness starts its own"
        return ""

    def _no_process(self, name: str) -> str:
        if name == _PROXY and not self.own_proxy:
            return "it needs a process that the harness started: leave out --base-url, so that it starts its own proxy"
        if name != _PROXY and not self.launched:
            return "it needs a process that the harness started: leave out --prefill-url and --decode-url"
        return ""
