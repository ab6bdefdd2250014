"""The figures of a run while it goes on, from what an observer is told."""

import numpy as np
import pytest

from harness.history import (
    Choice,
    DeadProcess,
    Ended,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    Outcome,
    RunEnded,
    Sample,
    Sampled,
    Scraped,
    Sent,
)
from harness.observer import PhasePlan
from harness.reports.progress.figures import Figures, Rates
from harness.reports.progress.latency_bins import LatencyBins
from harness.reports.progress.words import seconds_left, share_done
from harness.scenario import Request

CLOSED = PhasePlan("load", "load", 100, of_load=True, concurrency=8)


class Run:
    """Figures that are told of requests; the run's clock is 1,000 s ahead of the clock of who shows them."""

    def __init__(self, plan: PhasePlan = CLOSED) -> None:
        self.figures, self.now = Figures(), 10.0
        self.figures.sending(plan)
        self.figures.phase(self.now)

    def tell(self, *entries: object) -> None:
        for entry in entries:
            self.figures.recorded(entry, lambda: self.now)  # type: ignore[arg-type]

    def send(self, name: str, due: float) -> None:
        self.tell(Sent(1000 + due, Request(name, (1, 2)), "load", "load", 1000 + due))

    def end(self, name: str, at: float, first: float | None = None, outcome: Outcome = Outcome.OK, n: int = 20) -> None:
        times = () if first is None else (1000 + first, 1000 + at)
        self.tell(Ended(1000 + at, name, outcome, choices=(Choice((1,) * n),), token_times=times))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("percent", [1, 50, 90, 99])
def test_percentiles_are_right_to_a_bin(seed: int, percent: float) -> None:
    latencies = np.random.default_rng(seed).lognormal(-2, 1.5, 2000)
    bins = LatencyBins()
    for one in latencies.tolist():
        bins.add(one)
    assert bins.total == 2000
    found = bins.percentile(percent)
    assert found == pytest.approx(float(np.percentile(latencies, percent, method="inverted_cdf")), rel=0.0101)


def test_latencies_of_any_size_are_counted() -> None:
    bins = LatencyBins()
    assert bins.percentile(50) is None
    for one in (0.0, -1.0, 1e-9, 1e12):
        bins.add(one)
    assert bins.total == 4
    assert (bins.percentile(50) or 1) < 1e-4
    assert (bins.percentile(100) or 0) > 80_000


def test_latencies_count_from_when_a_request_was_due_and_failures_have_none() -> None:
    run = Run()
    for number in range(4):
        run.send(f"r{number}", due=number)
    run.end("r0", at=2.0, first=0.5)
    run.end("r1", at=3.0, first=1.5)
    run.end("r2", at=60.0, outcome=Outcome.INFO, n=0)
    traffic = run.figures.traffic
    assert traffic is not None
    assert (traffic.in_flight, traffic.ended, traffic.tokens) == (1, 3, 40)
    assert (traffic.e2e.total, traffic.ttft.total) == (2, 2)
    assert traffic.e2e.percentile(99) == pytest.approx(2.0, rel=0.0101)
    assert traffic.ttft.percentile(99) == pytest.approx(0.5, rel=0.0101)


def test_an_answer_that_was_not_streamed_has_no_first_token() -> None:
    run = Run()
    run.send("r", due=0.0)
    run.end("r", at=1.0)
    assert run.figures.traffic is not None
    assert (run.figures.traffic.ttft.total, run.figures.traffic.e2e.total) == (0, 1)


def test_recent_rates_follow_a_change_that_the_mean_hides() -> None:
    run = Run()
    traffic = run.figures.traffic
    assert traffic is not None
    # 10 requests a second of 2 tokens for 20 s, then none for 10 s.
    for number in range(200):
        run.send(f"r{number}", due=0.0)
        run.end(f"r{number}", at=1.0, n=2)
        run.now += 0.1
        recent = traffic.recent(run.now)
    assert recent is not None
    assert (recent.requests, recent.tokens) == (pytest.approx(10, rel=0.05), pytest.approx(20, rel=0.05))
    for _ in range(100):
        run.now += 0.1
        recent = traffic.recent(run.now)
    assert recent == Rates(0.0, 0.0)
    mean = traffic.mean(run.now)
    assert mean is not None
    assert mean.requests == pytest.approx(200 / 30)


def test_a_new_phase_begins_from_nothing() -> None:
    run = Run()
    run.send("r", due=0.0)
    run.tell(Sampled(1.0, "decode-0", running=1))
    run.figures.phase(20.0)
    run.end("r", at=25.0)
    traffic = run.figures.traffic
    assert traffic is not None
    assert (traffic.in_flight, traffic.ended, traffic.plan, run.figures.servers) == (0, 0, None, {})


def sampled(at: float, compute: float, transferred: float, **fields: float) -> Sampled:
    return Sampled(at, "decode-0", local_compute=compute, external_kv_transfer=transferred, **fields)


def test_token_sources_count_from_the_reading_before_the_phase() -> None:
    run = Run()
    name = "vllm:prompt_tokens_by_source_total"
    samples = tuple(
        Sample(name, {"engine": engine, "source": source}, value)
        for engine, source, value in (("0", "local_compute", 60), ("1", "local_compute", 40), ("0", "other", 7))
    )
    run.tell(Scraped(1.0, "decode-0", "before", "load", "load", (*samples, Sample("vllm:other", {}, 5.0))))
    run.tell(sampled(2.0, 130, 900))
    assert run.figures.servers["decode-0"].sources == {"local_compute": 30, "external_kv_transfer": 900}
    # The server does not answer: what it counted is still shown.
    run.tell(Sampled(3.0, "decode-0", cause="it did not answer"))
    assert run.figures.servers["decode-0"].sources == {"local_compute": 30, "external_kv_transfer": 900}
    # It was restarted, and counts from zero.
    run.tell(sampled(4.0, 5, 6))
    assert run.figures.servers["decode-0"].sources == {"local_compute": 0, "external_kv_transfer": 6}


def test_servers_keep_the_deployment_s_order_whichever_answers_first() -> None:
    run = Run()
    run.tell(*(Scraped(1.0, name, "before", "load", "load", ()) for name in ("prefill-0", "decode-0", "decode-1")))
    run.tell(*(Sampled(2.0, name) for name in ("decode-1", "prefill-0", "decode-0")))
    assert list(run.figures.servers) == ["prefill-0", "decode-0", "decode-1"]


def test_without_a_reading_before_token_sources_count_from_the_first_one() -> None:
    run = Run()
    run.tell(sampled(2.0, 130, 900), sampled(3.0, 131, 950))
    assert run.figures.servers["decode-0"].sources == {"local_compute": 1, "external_kv_transfer": 50}


def test_a_fault_is_at_work_from_its_beginning_to_its_healing() -> None:
    run = Run()
    run.tell(FaultPlanned(1.0, "pause-1", "pause", "decode-0", "stop decode-0"))
    assert run.figures.faults == {}
    run.tell(FaultBegan(2.0, "pause-1"))
    assert run.figures.faults == {"pause-1": (10.0, "stop decode-0")}
    run.tell(FaultHealed(3.0, "pause-1", healed=True, text=""))
    assert run.figures.faults == {}


def test_processes_that_died_are_named() -> None:
    run = Run()
    run.tell(RunEnded(1.0, died=(DeadProcess("decode-0", "decode-0 ended with status 1"),)))
    assert run.figures.died == ("decode-0",)


@pytest.mark.parametrize(
    ("plan", "done", "elapsed", "expected"),
    [
        (CLOSED, 25, 10.0, 30.0),
        (CLOSED, 0, 10.0, None),
        (None, 25, 10.0, None),
        # 75 requests are left, and the last of them is due 30 s from the beginning, however many have ended.
        (PhasePlan("s", "p", 100, of_load=True, concurrency=8, last_due=30.0), 5, 10.0, 20.0),
        (PhasePlan("s", "p", 100, of_load=True, concurrency=8, last_due=30.0), 95, 35.0, 0.0),
        # The time is over before the requests are.
        (PhasePlan("s", "p", 100_000, of_load=True, concurrency=8, seconds=60.0), 25, 10.0, 50.0),
    ],
)
def test_the_time_left(plan: PhasePlan | None, done: int, elapsed: float, expected: float | None) -> None:
    assert seconds_left(plan, done, elapsed) == expected


def test_a_load_with_a_time_limit_is_done_when_its_time_is_over() -> None:
    timed = PhasePlan("s", "p", 1000, of_load=True, concurrency=8, seconds=60.0)
    assert share_done(timed, 100, 1000, 30.0) == 0.5
    assert share_done(timed, 900, 1000, 30.0) == 0.9
    assert share_done(timed, 900, 1000, 90.0) == 1.0
    assert share_done(None, 0, 0, 1.0) == 1.0
