"""What servers did of requests whose clients left: read from their metrics.

vLLM counts the requests that it finished, by reason. A request that is aborted because its client has gone is counted
as ``abort`` by some releases, and not at all by others: so what is missing among the finished ones tells.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from harness.facts import Role
from harness.faults.site import POLL_S, Site

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_SAMPLE = re.compile(r"^(?:\w*vllm:)?(\w+)(?:\{(.*)\})? (\S+)", re.MULTILINE)
_FINISHED, _GONE = "request_success_total", "pd_proxy_client_gone_total"
_STARTED = "process_start_time_seconds"
_IN_FLIGHT = ("num_requests_running", "num_requests_waiting")
_REASON = re.compile(r'(?:finished_reason|phase)="([^"]*)"')
_WITHOUT_ANSWER = ("abort", "error")

_Samples = list[tuple[str, str, float]]
"""Name, value of the label that counts (reason or stage), and value, of each sample."""


@dataclass(frozen=True, slots=True)
class Served:
    """Counts since the servers started."""

    finished: int
    """Requests to whose end the decode servers came."""
    aborted: int
    """Requests that the decode servers count as aborted."""
    gone: Mapping[str, int] = field(default_factory=dict)
    """Clients that left, by the stage at which the harness's own proxy was; empty: another proxy, or none."""
    started: tuple[float, ...] = ()
    """When each decode server started, in seconds since 1970, as far as they say so."""

    def since(self, earlier: "Served") -> "Served | None":
        """The growth since an earlier reading; None if a decode server was restarted, and so counts from zero."""
        if self.started != earlier.started or self.finished < earlier.finished:
            return None
        gone = {stage: count - earlier.gone.get(stage, 0) for stage, count in self.gone.items()}
        return Served(self.finished - earlier.finished, self.aborted - earlier.aborted, gone, self.started)


async def read_served(site: Site) -> Served | None:
    """One reading; None if a server's metrics could not be read, or do not count what was finished."""
    urls = [server.url for server in site.deployment.of(Role.DECODE)]
    own = [site.deployment.proxy_url] if site.deployment.own_proxy and site.deployment.proxy_url else []
    pages = [await _samples(site, url) for url in (*urls, *own)]
    counted = [sample for page in pages if page is not None for sample in page]
    if None in pages or not any(name == _FINISHED for name, _, _ in counted):
        return None
    reasons = _by_label(counted, _FINISHED)
    whole = sum(count for reason, count in reasons.items() if reason not in _WITHOUT_ANSWER)
    started = tuple(value for name, _, value in counted if name == _STARTED)[: len(urls)]
    return Served(whole, reasons.get("abort", 0), _by_label(counted, _GONE), started)


async def until_idle(site: Site) -> float | None:
    """Seconds until no server works on a request any more; None if one does to the end of the patience."""
    began = site.clock.now()
    while site.clock.now() - began <= site.patience:
        pages = [await _samples(site, server.url) for server in site.deployment.servers]
        if all(page is not None and not any(v for name, _, v in page if name in _IN_FLIGHT) for page in pages):
            return site.clock.now() - began
        await site.clock.sleep(POLL_S)
    return None


async def _samples(site: Site, url: str) -> _Samples | None:
    try:
        async with (
            aiohttp.ClientSession(headers=site.headers, timeout=_TIMEOUT) as session,
            session.get(f"{url.rstrip('/')}/metrics") as answer,
        ):
            text = await answer.text()
            return [*map(_sample, _SAMPLE.finditer(text))] if answer.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None


def _sample(line: re.Match[str]) -> tuple[str, str, float]:
    name, labels, value = line.groups()
    label = _REASON.search(labels or "")
    return name, label.group(1) if label else "", float(value)


def _by_label(samples: _Samples, wanted: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, label, value in samples:
        if name == wanted:
            found[label] = found.get(label, 0) + int(value)
    return found
