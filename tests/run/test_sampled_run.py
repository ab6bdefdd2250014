"""A run's servers are sampled while its load is sent, and its verdict does not depend on the samples."""

from dataclasses import replace

import pytest
from polling import until
from simulated import simulated

from harness.checkers import judge
from harness.checkers.by_scenario import judge_scenario
from harness.clock import MonotonicClock
from harness.facts import Deployment
from harness.faults.relay_metrics import MetricsRelay
from harness.history import Entry, History, RunStarted, Sampled
from harness.loads import RandomLoad
from harness.observer import SILENT, PhasePlan, RunObserver, SilentObserver, VerifiedSoFar
from harness.proxy import start_proxy
from harness.run import Recorder, Sending, carry_out
from harness.run.transport import over_http
from harness.store import decode_entry, encode_entry
from harness.verify.asking import VerifyOptions, VerifyPolicy

VERIFY = VerifyOptions(policy=VerifyPolicy.parse("sample:8"), salt="verification", concurrency=8)
LOAD = RandomLoad(num_prompts=48, concurrency=8)


class Watcher(SilentObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.plans: list[PhasePlan] = []
        self.entries: list[Entry] = []
        self.so_far: list[VerifiedSoFar] = []

    def sending(self, plan: PhasePlan) -> None:
        self.plans.append(plan)

    def recorded(self, entry: Entry) -> None:
        self.entries.append(entry)

    def verified(self, so_far: VerifiedSoFar) -> None:
        self.so_far.append(so_far)


async def run(sending: Sending, observer: RunObserver = SILENT) -> tuple[Deployment, History]:
    record = Recorder()
    record(RunStarted(0.0, (), 0, "test", None, ("load",)))
    async with simulated() as sim:
        proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)
        try:
            deployment = sim.facts(proxy.url)
            scenario = LOAD.scenario(deployment, "salt")
            carried = await carry_out(
                [scenario],
                deployment,
                sending=sending,
                verify=VERIFY,
                record=record,
                clock=MonotonicClock(),
                observer=observer,
            )
        finally:
            await proxy.stop()
    return deployment, carried.history


@pytest.mark.slow
async def test_samples_are_taken_during_the_load_alone_and_change_no_verdict() -> None:
    deployment, history = await run(Sending(metrics_interval=0.01))
    samples = list(history.of(Sampled))
    of_load = [one for one in history.operations() if one.request.of_load]
    begin, end = min(one.sent.at for one in of_load), max(one.ended.at for one in of_load)
    assert {one.server for one in samples} == {"prefill-0", "decode-0"}
    assert all(begin < one.at < end + 0.1 for one in samples)
    assert history.operations()[-1].ended.at > samples[-1].at
    assert max(one.generation_tokens or 0 for one in samples if one.server == "decode-0") > 0
    assert all(decode_entry(encode_entry(one)) == one for one in samples)
    # Readings that would make any run invalid, if a checker believed them.
    absurd = [replace(one, prompt_tokens=1e9, running=7, kv_usage=1.0, cause="gone") for one in samples]
    changed = iter(absurd)
    other = History(tuple(next(changed) if isinstance(one, Sampled) else one for one in history.entries))
    without = History(tuple(one for one in history.entries if not isinstance(one, Sampled)))
    plain = judge(deployment, without)
    assert judge(deployment, history) == plain == judge(deployment, other)
    of_scenario = judge_scenario(deployment, without, plain, "load")
    assert judge_scenario(deployment, other, plain, "load") == of_scenario


async def test_the_relay_before_a_server_s_metrics_does_not_see_the_readings_during_the_load() -> None:
    """It counts the readings that it spoiled, as evidence of its fault."""
    record = Recorder()
    async with simulated() as sim:
        deployment, relay = sim.facts(), MetricsRelay(0, sim.decode_urls[0])
        await relay.start()
        sending = Sending(metrics_interval=0.01, metrics_urls={"decode-0": f"http://127.0.0.1:{relay.port}"})
        async with over_http(deployment, sending, record, MonotonicClock()) as transport, transport.watching():
            await until(lambda: {one.server for one in record.history.of(Sampled)} == {"prefill-0", "decode-0"})
            assert relay.counted()["asked"] == 0
            await transport.counters.read(scenario="s", phase="p", label="before")
            assert relay.counted()["asked"] > 0
        await relay.stop()


@pytest.mark.slow
async def test_an_observer_is_told_of_each_entry_and_of_what_verification_finds() -> None:
    watcher = Watcher()
    deployment, history = await run(Sending(metrics_interval=0), watcher)
    # The first two, the run's beginning and how its servers decode, were recorded before.
    assert watcher.entries == list(history.entries[2:])
    (load,) = (plan for plan in watcher.plans if plan.scenario == "random_load")
    assert load == PhasePlan("random_load", "load", 48, of_load=True, concurrency=8)
    assert not any(plan.of_load for plan in watcher.plans if plan is not load)
    outputs = judge(deployment, history).outputs
    first, last = watcher.so_far[0], watcher.so_far[-1]
    assert (first.outputs, first.verified, first.witnessed) == (48, 0, 48)
    assert (last.outputs, last.verified, last.wrong) == (48, outputs.exact + outputs.tie, outputs.mismatch)
    assert last.verified >= first.planned == 8
