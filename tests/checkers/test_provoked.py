"""A scenario whose situation did not occur has tested nothing: it is unknown, whatever else is right."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.catalogue.choice import catalogue
from harness.catalogue.registry import Workload
from harness.checkers.provoked import provoked
from harness.history import Entry, History, Scraped
from harness.observe.counters import GROWING, SAMPLE_NAMES
from harness.observe.exposition import parse
from harness.scenario import Situation
from harness.verdict import Verdict

EXPIRED = Situation(("nixl_expired",))


def reading(label: str, expired: float, *, started: float = 1.0) -> Scraped:
    text = f"process_start_time_seconds {started}\nvllm:nixl_num_kv_expired_reqs_total {expired}\n"
    return Scraped(0.0, "prefill-0", label, "cold", "load", parse(text, SAMPLE_NAMES).samples)


def verdict(*entries: Entry, situation: Situation = EXPIRED) -> Verdict:
    return provoked(run.DEPLOYMENT, History(entries), situation).verdict


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([reading("before", 5), reading("after", 7)], Verdict.VALID),
        ([reading("before", 5), reading("after", 5)], Verdict.UNKNOWN),
        # It grew before the scenario.
        ([reading("before", 5)], Verdict.UNKNOWN),
        ([], Verdict.UNKNOWN),
        # Between two phases, in one that is not counted.
        ([reading("watched-before", 5), reading("watched-after", 5), reading("before", 6)], Verdict.VALID),
        # A counter that falls has not grown; neither has one that begins again, beyond what it says then.
        ([reading("before", 5), reading("after", 3)], Verdict.UNKNOWN),
        ([reading("before", 5), reading("after", 0, started=2.0)], Verdict.UNKNOWN),
        ([reading("before", 5), reading("after", 1, started=2.0)], Verdict.VALID),
    ],
)
def test_a_counter_must_have_grown_from_one_reading_to_the_next(readings: list[Scraped], expected: Verdict) -> None:
    assert verdict(*readings) is expected


def test_each_of_several_counters_must_have_grown() -> None:
    both = Situation(("nixl_expired", "preemptions"))
    check = provoked(run.DEPLOYMENT, History((reading("before", 5), reading("after", 7))), both)
    assert check.verdict is Verdict.UNKNOWN
    assert check.summary.startswith("preemptions did not grow on any server")


@pytest.mark.parametrize(("first_token", "expected"), [(5.5, Verdict.VALID), (3.9, Verdict.UNKNOWN)])
def test_a_request_must_have_waited_for_decode(first_token: float, expected: Verdict) -> None:
    sent, ended = run.operation(run.request(0))
    times = tuple(sent.at + first_token + n for n, _ in enumerate(ended.token_times))
    # Prefill's share of the wait does not count: 1 s here.
    waited = replace(ended, token_times=times, proxy_seconds=0.2, prefill_seconds=0.8)
    assert verdict(sent, waited, situation=Situation(waits=3.0)) is expected
    # Of another proxy, nobody knows when prefill answered.
    unknown = replace(waited, prefill_seconds=None)
    assert verdict(sent, unknown, situation=Situation(waits=3.0)) is Verdict.UNKNOWN


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)
def test_workloads_name_counters_that_exist(entry: Workload) -> None:
    assert set(entry.provokes.counters if entry.provokes else ()) <= set(GROWING)
