"""A run's results as Prometheus metrics, for the node exporter's textfile collector or a Pushgateway.

Names and units follow Prometheus's rules: seconds, bytes, no unit in a label. What is not known is left out, never 0.
A verdict is a set of series, of which one is 1: ``verdict="valid"``, ``"invalid"`` or ``"unknown"``, so that an alert
on ``verdict="valid" == 0`` also fires for an unknown run. A latency is a summary: the quantiles are of this run.
Each series has the run's ``--label`` as ``label``: files of several runs may lie beside each other.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from harness.checkers.token_sources import SOURCES
from harness.history import Outcome
from harness.load.latency import Latencies
from harness.reports.counters import CounterRow
from harness.reports.counters import rows as counter_rows
from harness.reports.report import Report
from harness.reports.requests import OutputStatus, RequestRow
from harness.reports.verification_cost import verification_cost
from harness.verdict import Verdict

PREFIX = "pd_harness"
QUANTILES = (0.5, 0.9, 0.95, 0.99)
_TRANSFERS = {"nixl_bytes": "nixl", "offload_load_bytes": "offload_load", "offload_store_bytes": "offload_store"}
_LATENCIES = {
    "ttft": "Time to first token, from when the request was due.",
    "tpot": "Time per output token after the first.",
    "itl": "Time between two output tokens.",
    "e2e": "End-to-end latency, from when the request was due.",
}

Labels = Mapping[str, str]


def results_text(report: Report, requests: Sequence[RequestRow]) -> bytes:
    """The text format that the node exporter reads."""
    return generate_latest(registry_of(report, requests))


def registry_of(report: Report, requests: Sequence[RequestRow]) -> CollectorRegistry:
    """A registry that has this run's results and nothing of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Results(report, requests))
    return registry


class _Results(Collector):
    def __init__(self, report: Report, requests: Sequence[RequestRow]) -> None:
        self._report, self._requests = report, requests

    def collect(self) -> Iterable[Metric]:
        """The metrics that have a value."""
        every = (*_verdicts(self._report), *_times(self._report), *_counts(self._report, self._requests))
        every += (*_speed(self._report), *_transferred(self._report))
        for metric in every:
            metric.samples = [one._replace(labels=self._labelled(one.labels)) for one in metric.samples]
            if metric.samples:
                yield metric

    def _labelled(self, labels: Labels) -> dict[str, str]:
        return {"label": self._report.identity.label, **labels}


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, float | None]]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text)
    for labels, value in samples:
        if value is not None and np.isfinite(value):
            family.add_sample(family.name, dict(labels), float(value))
    return family


def _verdicts(report: Report) -> Iterator[Metric]:
    facts = {**report.identity.versions, "run": report.identity.run, "seed": str(report.identity.seed)}
    yield _gauge("run_info", "What was run, and by which versions.", [(facts, 1)])
    yield _gauge("run_verdict", "The run's verdict: 1 for the one that it has.", _one_of(report.verdict, {}))
    checks = [one for check in report.checks for one in _one_of(check.verdict, {"check": check.name})]
    yield _gauge("check_verdict", "A check's verdict: 1 for the one that it has.", checks)
    words = ("valid", "invalid", "unknown", "known fault", "skipped")
    workloads = [
        ({"workload": row.workload, "deployment": row.deployment_name, "verdict": word}, float(row.word == word))
        for row in report.rows
        for word in words
    ]
    yield _gauge("workload_verdict", "A workload's verdict: 1 for the one that it has.", workloads)


def _one_of(verdict: Verdict, labels: Labels) -> list[tuple[Labels, float]]:
    return [({**labels, "verdict": one.value}, float(one is verdict)) for one in Verdict]


def _times(report: Report) -> Iterator[Metric]:
    started = report.identity.started.timestamp()
    ended = started + report.identity.seconds if report.identity.seconds else None
    yield _gauge("run_started_timestamp_seconds", "When the run started, in Unix time.", [({}, started)])
    yield _gauge("run_ended_timestamp_seconds", "When the run ended, in Unix time.", [({}, ended)])
    cost = verification_cost(report.history)
    yield _gauge("load_seconds", "How long the load took.", [({}, cost.load_seconds)])
    yield _gauge("load_tokens", "Tokens that the engines computed for the load.", [({}, cost.load_tokens)])
    yield _gauge("verification_seconds", "How long the verification of the outputs took.", [({}, cost.seconds)])
    yield _gauge("verification_tokens", "Tokens that the engines computed for the verification.", [({}, cost.tokens)])


def _counts(report: Report, requests: Sequence[RequestRow]) -> Iterator[Metric]:
    outcomes = Counter(row.outcome for row in requests)
    by_outcome = [({"outcome": one.value}, float(outcomes[one])) for one in Outcome]
    yield _gauge("requests", "Requests of the load: completed, without effect, or with an unknown effect.", by_outcome)
    outputs = Counter(row.output for row in requests)
    by_status = [({"status": one.value}, float(outputs[one])) for one in OutputStatus]
    yield _gauge("outputs", "Outputs of the load, by what is known of them.", by_status)
    findings = [({"check": check.name}, float(len(check.findings))) for check in report.checks]
    yield _gauge("check_findings", "What a check found wrong or unknown.", findings)


def _speed(report: Report) -> Iterator[Metric]:
    result = report.result
    yield _gauge("requests_per_second", "Completed requests.", [({}, result["request_throughput"])])
    yield _gauge("output_tokens_per_second", "Output tokens.", [({}, result["output_throughput"])])
    yield _gauge("tokens_per_second", "Prompt and output tokens.", [({}, result["total_token_throughput"])])
    good = None if report.goodput is None else report.goodput.per_second
    yield _gauge("good_requests_per_second", "Requests that kept all objectives.", [({}, good)])
    yield from _latencies(report.latencies)


def _latencies(measured: Latencies) -> Iterator[Metric]:
    for name, text in _LATENCIES.items():
        seconds = getattr(measured, name)
        family = SummaryMetricFamily(f"{PREFIX}_{name}_seconds", text)
        if len(seconds):
            values = np.quantile(seconds, QUANTILES).tolist()
            for quantile, value in zip(QUANTILES, values, strict=True):
                family.add_sample(family.name, {"quantile": str(quantile)}, value)
            family.add_metric([], count_value=len(seconds), sum_value=float(seconds.sum()))
        yield family


def _transferred(report: Report) -> Iterator[Metric]:
    counters = counter_rows(report.judgement.comparisons)
    moved = [row for row in counters if row.counter in _TRANSFERS]
    by_transfer = [({"server": row.server, "transfer": _TRANSFERS[row.counter]}, row) for row in moved]
    yield from _observed_and_expected("transferred_bytes", "Bytes of KV that a server moved", by_transfer)
    by_source = [({"server": row.server, "source": row.counter}, row) for row in counters if row.counter in SOURCES]
    yield from _observed_and_expected("prompt_tokens", "Prompt tokens by where their KV came from", by_source)


def _observed_and_expected(name: str, text: str, found: Sequence[tuple[Labels, CounterRow]]) -> Iterator[Metric]:
    """Two metrics. What is expected has two bounds, which are equal if only one value is right."""
    yield _gauge(name, f"{text}, as observed.", ((labels, row.observed) for labels, row in found))
    bounds = [
        ({**labels, "bound": bound}, getattr(row.expected, end))
        for labels, row in found
        if row.expected is not None
        for bound, end in (("min", "low"), ("max", "high"))
    ]
    yield _gauge(f"expected_{name}", f"{text}, as predicted from the requests.", bounds)
