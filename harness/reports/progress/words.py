"""The figures of a run in words, for plain lines and for a terminal alike."""

from collections.abc import Iterator, Mapping

from harness.observer import PhasePlan, VerifiedSoFar
from harness.reports.progress.figures import Rates, ServerState, Traffic
from harness.reports.progress.latency_bins import LatencyBins
from harness.reports.progress.sources import SOURCES
from harness.reports.text import clean, duration, figure

SOURCE_WORDS: Mapping[str, str] = dict(zip(SOURCES, ("computed", "cached", "transferred"), strict=True))


def rate_words(recent: Rates | None, mean: Rates | None) -> str:
    """``312 requests/s (mean 298), 5,980 output tokens/s (mean 5,857)``; empty if no time has passed."""
    if recent is None or mean is None:
        return ""
    return (
        f"{figure(recent.requests)} requests/s (mean {figure(mean.requests)}), "
        f"{figure(recent.tokens)} output tokens/s (mean {figure(mean.tokens)})"
    )


def latency_words(traffic: Traffic) -> str:
    """``TTFT p50 19.2, p99 45.1 ms; E2E p50 101, p99 178 ms``; empty if no request has ended."""
    found = (("TTFT", traffic.ttft), ("E2E", traffic.e2e))
    return "; ".join(f"{name} {_percentiles(bins)} ms" for name, bins in found if bins.total)


def _percentiles(bins: LatencyBins) -> str:
    return ", ".join(f"p{percent} {figure(1000 * (bins.percentile(percent) or 0.0))}" for percent in (50, 99))


def seconds_left(plan: PhasePlan | None, done: int, elapsed: float, e2e: LatencyBins | None = None) -> float | None:
    """Seconds until the phase ends, if it goes on as until now; None: nobody knows."""
    if plan is None or not done or elapsed <= 0:
        return None
    left = (plan.total - done) * elapsed / done
    if plan.last_due is not None:
        left = max(plan.last_due - elapsed, 0.0) + ((e2e and e2e.percentile(50)) or 0.0)
    if plan.seconds is not None:
        left = min(left, max(plan.seconds - elapsed, 0.0))
    return left


def share_done(plan: PhasePlan | None, done: int, total: int, elapsed: float) -> float:
    """How much of the phase is done, 0 to 1: by its requests, or by its time if that is over earlier."""
    by_time = elapsed / plan.seconds if plan is not None and plan.seconds else 0.0
    return min(max(done / total if total else 1.0, by_time), 1.0)


def verified_words(so_far: VerifiedSoFar) -> str:
    """``verified 12 of about 40, 0 wrong, 2 doubtful; 900 first tokens compared``: what matters most first."""
    return (
        f"verified {so_far.verified:,} of about {so_far.planned:,}, {so_far.wrong:,} wrong, "
        f"{so_far.doubtful:,} doubtful; {so_far.witnessed:,} first tokens compared"
    )


def state_word(server: ServerState) -> str:
    """``busy``, ``idle``, ``no answer``; ``-`` if the server does not say what it does."""
    reading = server.reading
    if reading.cause:
        return "no answer"
    if reading.running is None and reading.waiting is None:
        return "-"
    return "busy" if reading.running or reading.waiting else "idle"


def source_words(server: ServerState) -> dict[str, str]:
    """For each source ``68,487 (99%)``, ``-`` if it is not counted."""
    total = sum(server.sources.values())
    return {name: _counted(server.sources.get(name), total) for name in SOURCES}


def _counted(tokens: float | None, total: float) -> str:
    if tokens is None:
        return "-"
    return f"{tokens:,.0f} ({tokens / total:.0%})" if total else f"{tokens:,.0f}"


def server_words(name: str, server: ServerState) -> str:
    """``decode-0: 16 running, 1 waiting, KV 5%, prompt tokens 120 computed (1%), 9,000 transferred (99%)``."""
    reading = server.reading
    if reading.cause:
        return f"{clean(name)}: no answer ({clean(reading.cause, 80)})"
    return f"{clean(name)}: " + ", ".join(_parts(server)) if any(_parts(server)) else f"{clean(name)}: no figures"


def _parts(server: ServerState) -> Iterator[str]:
    reading = server.reading
    if reading.running is not None:
        yield f"{reading.running:,.0f} running"
    if reading.waiting is not None:
        yield f"{reading.waiting:,.0f} waiting"
    if reading.kv_usage is not None:
        yield f"KV {reading.kv_usage:.0%}"
    words = source_words(server)
    counted = [f"{words[source]} {SOURCE_WORDS[source]}" for source, tokens in server.sources.items() if tokens]
    if counted:
        yield f"prompt tokens {', '.join(counted)}"


def fault_words(name: str, text: str, seconds: float) -> str:
    """``fault pause-1 at work for 2.1 s: pause decode-0``."""
    return clean(f"fault {name} at work for {duration(max(seconds, 0.0))}" + (f": {text}" if text else ""))
