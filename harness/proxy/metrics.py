"""``GET /metrics``: exactly the counts of ``/proxy/status`` (status.py), in Prometheus' text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from harness.proxy.status import Status, UpstreamCounts

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PROXY_COUNTERS = {
    "requests": "Completion and chat completion requests.",
    "rejected": "Requests that the proxy refused without asking a server.",
    "stranded_prefills": "Requests that the prefill server finished and whose decode server could not be reached.",
}
_SERVER_COUNTERS = {
    "requests": "Requests sent to this server.",
    "completed": "Answers with status 200 that arrived whole and, from a decode server, reached the client whole.",
    "http_errors": "Answers with any other status.",
    "unreachable": "Requests for which no connection could be made.",
    "broken": "Requests whose connection broke before the end of the answer.",
    "incomplete_handovers": "Completed answers of a prefill server that could not be handed to a decode server.",
}


def exposition(status: Status) -> tuple[bytes, str]:
    """The current counts as text, and the content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(status))
    return generate_latest(registry), _CONTENT_TYPE


class _Counts(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        for name, documentation in _PROXY_COUNTERS.items():
            yield CounterMetricFamily(f"pd_proxy_{name}", documentation, value=getattr(status, name))
        yield GaugeMetricFamily("pd_proxy_requests_in_flight", "Requests being served.", value=status.in_flight)
        gone = CounterMetricFamily("pd_proxy_client_gone", "Clients that disconnected, by stage.", labels=["phase"])
        for stage, count in status.client_gone.items():
            gone.add_metric([stage], count)
        yield gone
        yield from map(self._server_counter, _SERVER_COUNTERS)

    def _server_counter(self, name: str) -> Metric:
        labels = ["server", "role", "url"]
        family = CounterMetricFamily(f"pd_proxy_upstream_{name}", _SERVER_COUNTERS[name], labels=labels)
        for server, role, counts in _servers(self._status):
            family.add_metric([server, role, counts.url], getattr(counts, name))
        return family


def _servers(status: Status) -> Iterator[tuple[str, str, UpstreamCounts]]:
    """Name, role and counts of each server; the name keeps samples distinct if a URL is given twice."""
    for role, servers in (("prefill", status.prefill), ("decode", status.decode), ("other", [status.other])):
        for number, counts in enumerate(servers):
            yield f"{role}-{number}", role, counts
