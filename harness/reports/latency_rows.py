"""The latencies of a run as they are shown: statistics with their intervals, and the load without its warm-up."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.load.latency import Distribution, Interval, LatencyDetail, LatencyReport
from harness.reports.text import duration, figure, plural

_SHOWN = ("mean", "p50", "p90", "p99")
_SHOWN_WAIT_MS = 1.0
"""Latencies from the sending are shown too if requests waited longer than this for it, on average."""


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One latency, in milliseconds, formatted: mean, p50, p90, p99."""

    name: str
    values: tuple[str, str, str, str]
    intervals: tuple[str, str, str, str] = ("", "", "", "")
    """The 95 % confidence interval of each value; empty where there is none."""


def latency_rows(latency: LatencyReport, detail: LatencyDetail) -> tuple[LatencyRow, ...]:
    """A row for each latency; with those from the sending if requests were sent late enough to show."""
    found = detail.intervals
    rows = (
        LatencyRow("TTFT", _statistics(latency.ttft), _intervals(found["ttft"])),
        LatencyRow("ITL", _statistics(latency.itl), _intervals(found["itl"])),
        LatencyRow("TPOT", _statistics(latency.tpot), _intervals(found["tpot"])),
        LatencyRow("E2E", _statistics(latency.e2el), _intervals(found["e2el"])),
    )
    if not _waited(latency):
        return rows
    sent = (("TTFT from send", latency.ttft_from_send), ("E2E from send", latency.e2el_from_send))
    return (*rows, *(LatencyRow(name, _statistics(values)) for name, values in sent))


def shares_line(detail: LatencyDetail) -> str:
    """Who took how much of the mean time to first token; empty if the proxy does not say."""
    shares = detail.shares
    if shares is None or shares.ttft <= 0:
        return ""
    waiting = f", {shares.waiting / shares.ttft:.0%} waiting to be sent" if shares.waiting > _SHOWN_WAIT_MS else ""
    return (
        f"of the mean TTFT, {shares.prefill / shares.ttft:.0%} prefill server, {shares.decode_first / shares.ttft:.0%} "
        f"decode server with KV transfer and network, {shares.proxy / shares.ttft:.1%} proxy ({figure(shares.proxy)} "
        f"ms){waiting}"
    )


def steady_line(detail: LatencyDetail) -> str:
    """The rate and latencies since warm-up ended; empty if no steady state was seen."""
    steady = detail.steady
    if steady is None:
        return ""
    ttft, e2el = steady.latency.ttft, steady.latency.e2el
    first = f"TTFT p50 {figure(ttft.p50)}, p99 {figure(ttft.p99)} ms; " if ttft else ""
    last = f"E2E p50 {figure(e2el.p50)}, p99 {figure(e2el.p99)} ms; " if e2el else ""
    return f"{first}{last}{figure(steady.request_throughput)} requests/s, {_from_when(steady.first, steady.after)}"


def _from_when(warmup: int, seconds: float) -> str:
    if not warmup:
        return "from the first request on"
    return f"without the {plural(warmup, 'request')} ({duration(seconds)}) of warm-up"


def _waited(latency: LatencyReport) -> bool:
    due, sent = latency.e2el, latency.e2el_from_send
    return due is not None and sent is not None and due.mean - sent.mean > _SHOWN_WAIT_MS


def _statistics(values: Distribution | None) -> tuple[str, str, str, str]:
    if values is None:
        return ("-", "-", "-", "-")
    return (figure(values.mean), figure(values.p50), figure(values.p90), figure(values.p99))


def _intervals(found: Mapping[str, Interval]) -> tuple[str, str, str, str]:
    mean, p50, p90, p99 = (
        f"{figure(found[name].low)} to {figure(found[name].high)}" if name in found else "" for name in _SHOWN
    )
    return mean, p50, p90, p99
