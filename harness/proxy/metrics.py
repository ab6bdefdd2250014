"""``GET /metrics``: the counts of status.py in Prometheus' text format, and nothing that ``/proxy/status`` has not."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from harness.proxy.status import Status, UpstreamCounts

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OF_ALL = {
    "requests": "Requests to the two endpoints that generate.",
    "rejected": "Requests that the proxy answered with 400; no server was asked.",
    "stranded_prefills": "Requests that P finished and whose D could not be reached.",
}
_OF_EACH = {
    "requests": "Requests sent to this server.",
    "completed": "Answers with status 200 that arrived whole and, from D, were passed on whole.",
    "http_errors": "Answers with any other status.",
    "unreachable": "Requests for which there was no connection.",
    "broken": "Requests whose server was gone before the end of its answer.",
    "incomplete_handovers": "Completed answers of P that could not be handed to D.",
}


def exposition(status: Status) -> tuple[bytes, str]:
    """The counts as they are now, and the content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(status))
    return generate_latest(registry), _CONTENT_TYPE


class _Counts(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        for name, says in _OF_ALL.items():
            yield CounterMetricFamily(f"pd_proxy_{name}", says, value=getattr(status, name))
        yield GaugeMetricFamily("pd_proxy_requests_in_flight", "Requests being served.", value=status.in_flight)
        gone = CounterMetricFamily("pd_proxy_client_gone", "Clients that went away, by phase.", labels=["phase"])
        for phase, count in status.client_gone.items():
            gone.add_metric([phase], count)
        yield gone
        yield from map(self._of_each, _OF_EACH)

    def _of_each(self, name: str) -> Metric:
        family = CounterMetricFamily(f"pd_proxy_upstream_{name}", _OF_EACH[name], labels=["server", "role", "url"])
        for server, role, counts in _servers(self._status):
            family.add_metric([server, role, counts.url], getattr(counts, name))
        return family


def _servers(status: Status) -> Iterator[tuple[str, str, UpstreamCounts]]:
    """Name, role and counts; named because a URL may be given twice, and a sample must not be."""
    for role, servers in (("prefill", status.prefill), ("decode", status.decode), ("other", [status.other])):
        for number, counts in enumerate(servers):
            yield f"{role}-{number}", role, counts
