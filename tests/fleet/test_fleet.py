"""A load that several workers send has the same history as one that is sent from here."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from observed_journal import Journal
from polling import until
from stations import Answer, Beside, at_once, fleet_of, never

from harness.clock import Clock, MonotonicClock
from harness.errors import HarnessError
from harness.fleet.fleet import Fleet
from harness.fleet.split import split
from harness.history import ClientHealth, ClockCompared, Ended, Ending, Entry, Outcome, Sent
from harness.load.latency.histogram import Histogram
from harness.observer import SilentObserver
from harness.run.runner import Loading, PhaseRun, run_scenario
from harness.scenario import Phase, Purpose, Request, Scenario


def load(size: int = 20, concurrency: int = 8) -> Phase:
    return Phase("load", tuple(Request(f"load-{n}", (n, 1)) for n in range(size)), concurrency)


def scenario(*phases: Phase) -> Scenario:
    return Scenario("s", "to test", phases)


async def carried(
    phases: Scenario, clock: Clock, loading: Loading | None, *, journal: Journal | None = None
) -> Journal:
    journal = Journal() if journal is None else journal

    async def send(request: Request) -> Ended:
        return await at_once(request, clock)

    await run_scenario(phases, send=send, counters=journal, record=journal.record, clock=clock, load=loading)
    return journal


def workers(number: int, answer: Answer = at_once) -> list[Beside]:
    return [Beside(f"worker-{n}", answer) for n in range(number)]


def without_times(journal: Journal) -> tuple[set[Request], dict[str, Ended]]:
    ends = {name: replace(end, at=0.0, token_times=()) for name, end in journal.ends().items()}
    return {sent.request for sent in journal.sents()}, ends


@pytest.mark.parametrize("number", [2, 4])
async def test_operations_are_those_of_one_client(number: int) -> None:
    clock = MonotonicClock()
    alone = await carried(scenario(load()), clock, None)
    sending = workers(number)
    async with fleet_of(sending, clock) as fleet:
        together = await carried(scenario(load()), clock, fleet.load)
    assert without_times(together) == without_times(alone)
    assert Counter(len(one.sent) for one in sending) == {20 // number: number}
    assert [entry.worker for entry in together if isinstance(entry, ClientHealth)] != []
    assert {one.worker for one in together if isinstance(one, ClientHealth)} == {one.name for one in sending}
    assert fleet.died() == ()


async def test_entries_are_in_the_order_of_their_times_and_each_end_follows_its_beginning() -> None:
    clock = MonotonicClock()
    async with fleet_of(workers(3), clock) as fleet:
        journal = await carried(scenario(load(60)), clock, fleet.load)
    operations = [entry for entry in journal if isinstance(entry, Sent | Ended)]
    begun: set[str] = set()
    for entry in operations:
        if isinstance(entry, Sent):
            begun.add(entry.request.request_id)
        else:
            assert entry.request_id in begun
    sent = [entry.at for entry in operations if isinstance(entry, Sent)]
    assert sent == sorted(sent)


async def test_a_clock_that_is_3_s_ahead_is_corrected() -> None:
    clock = MonotonicClock()
    sending = [Beside("worker-0"), Beside("worker-1", ahead=3.0), Beside("worker-2", ahead=-3.0)]
    async with fleet_of(sending, clock) as fleet:
        before = clock.now()
        journal = await carried(scenario(load()), clock, fleet.load)
        after = clock.now()
    compared = {one.worker: one for one in journal if isinstance(one, ClockCompared)}
    for name, ahead in {"worker-0": 0.0, "worker-1": 3.0, "worker-2": -3.0}.items():
        assert abs(compared[name].ahead - ahead) <= compared[name].uncertainty
    slack = max(one.uncertainty for one in compared.values())
    for entry in journal:
        if isinstance(entry, Sent | Ended | ClientHealth):
            assert before - slack <= entry.at <= after + slack
    for end in journal.ends().values():
        assert all(before - slack <= at <= after + slack for at in end.token_times)


async def test_the_merged_histogram_is_that_of_all_operations() -> None:
    clock = MonotonicClock()
    async with fleet_of(workers(4), clock) as fleet:
        journal = await carried(scenario(load(50)), clock, fleet.load)
    sent = {one.request.request_id: one.intended_at for one in journal.sents()}
    latency = {name: end.at - sent[name] for name, end in journal.ends().items()}
    merged = Histogram()
    for part in split(load(50), 4):
        merged.merge(Histogram(latency[one.request_id] for one in part.requests))
    assert merged == Histogram(latency.values())
    assert merged.total == 50


async def test_requests_that_verify_are_sent_from_here() -> None:
    clock = MonotonicClock()
    forcing = replace(load().requests[0], request_id="forcing", purpose=Purpose.FORCING, about="load-0")
    sending = workers(2)
    async with fleet_of(sending, clock) as fleet:
        journal = await carried(scenario(load(2), Phase("verify", (forcing,))), clock, fleet.load)
    assert {one.request_id for worker in sending for one in worker.sent} == {"load-0", "load-1"}
    assert journal.ends()["forcing"].outcome is Outcome.OK


async def test_conversations_go_on_in_later_phases_and_in_workers() -> None:
    clock = MonotonicClock()
    again = tuple(Request(f"again-{n}", (9,), continues=f"load-{n}") for n in range(4))
    lost = Request("lost", (9,), continues="never-sent")
    async with fleet_of(workers(2), clock) as fleet:
        journal = await carried(scenario(load(4), Phase("again", (*again, lost), 4)), clock, fleet.load)
    prompts = {sent.request.request_id: sent.request.prompt for sent in journal.sents()}
    assert [prompts[f"again-{n}"] for n in range(4)] == [(n, 1, 7, 9) for n in range(4)]
    assert journal.ends()["lost"].ending is Ending.NOT_SENT


async def test_more_workers_than_requests_in_flight_are_not_used_and_it_is_said() -> None:
    class Listening(SilentObserver):
        def __init__(self) -> None:
            self.notes: list[str] = []
            self.done: list[int] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

        def advance(self, done: int, total: int, failed: int) -> None:  # noqa: ARG002 - the protocol's parameters
            self.done.append(done)

    clock, journal, listening, sending = MonotonicClock(), Journal(), Listening(), workers(4)
    async with fleet_of(sending, clock) as fleet:
        await run_scenario(
            scenario(load(9, 2)),
            send=never,  # type: ignore[arg-type]
            counters=journal,
            record=journal.record,
            clock=clock,
            observer=listening,
            load=fleet.load,
        )
    assert [len(one.sent) for one in sending] == [5, 4, 0, 0]
    assert "2 of 4 workers" in listening.notes[0]
    assert listening.done == list(range(1, 10))


async def test_a_schedule_is_absolute_for_all_workers() -> None:
    clock = MonotonicClock()
    times = tuple(n / 100 for n in range(12))
    async with fleet_of(workers(3), clock) as fleet:
        journal = await carried(scenario(replace(load(12), due=times)), clock, fleet.load)
    intended = {sent.request.request_id: sent.intended_at for sent in journal.sents()}
    began = intended["load-0"]
    for n, time in enumerate(times):
        assert intended[f"load-{n}"] == began + time


class Held:
    """Holds every request of a worker until it is interrupted, or killed."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, request: Request, clock: Clock) -> Ended:
        self.count += 1
        return await never(request, clock)


async def test_the_operations_of_a_lost_worker_end_as_info_and_the_others_go_on() -> None:
    clock, journal, held = MonotonicClock(), Journal(), Held()
    doomed, other = Beside("worker-0", held), Beside("worker-1")
    async with fleet_of([doomed, other], clock) as fleet:
        run = asyncio.create_task(carried(scenario(load(20, 8)), clock, fleet.load, journal=journal))
        await until(lambda: len(journal.ends()) == 10 and len(journal.sents()) == 14)
        doomed.kill()
        await run
    lost = [end for end in journal.ends().values() if end.outcome is not Outcome.OK]
    assert len(lost) == 4
    assert {end.ending for end in lost} == {Ending.CLIENT_CRASHED}
    assert "worker-0" in lost[0].cause
    assert "signal 9" in lost[0].cause
    assert set(journal.ends()) == {sent.request.request_id for sent in journal.sents()}
    (died,) = fleet.died()
    assert died.name == "worker-0"
    assert "4 of its requests were in flight, and 6 more" in died.text


async def test_a_run_without_any_worker_left_fails() -> None:
    clock = MonotonicClock()
    sending = workers(2)
    async with fleet_of(sending, clock) as fleet:
        for one in sending:
            one.kill()
        await carried(scenario(load()), clock, fleet.load)
        with pytest.raises(HarnessError, match="No worker is left"):
            await carried(scenario(load()), clock, fleet.load)
    assert len(fleet.died()) == 2


async def test_interrupted_workers_report_what_was_in_flight() -> None:
    clock, journal = MonotonicClock(), Journal()
    ended: list[str] = []

    async def held(request: Request, clock: Clock) -> Ended:
        try:
            return await never(request, clock)
        finally:
            ended.append(request.request_id)

    async with fleet_of(workers(2, held), clock) as fleet:
        run = asyncio.create_task(carried(scenario(load(20, 8)), clock, fleet.load, journal=journal))
        await until(lambda: len(journal.sents()) == 8)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert sorted(ended) == sorted(journal.ends()), "the workers have closed the connections by now"
    assert {end.ending for end in journal.ends().values()} == {Ending.INTERRUPTED}
    assert len(journal.ends()) == len(journal.sents()) == 8


async def test_a_worker_that_is_lost_while_the_run_is_interrupted_leaves_no_operation_open() -> None:
    clock, journal = MonotonicClock(), Journal()
    sending = workers(2, never)
    async with fleet_of(sending, clock) as fleet:
        run = asyncio.create_task(carried(scenario(load(20, 8)), clock, fleet.load, journal=journal))
        await until(lambda: len(journal.sents()) == 8)
        sending[0].kill()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert len(journal.ends()) == 8


async def test_a_journal_that_cannot_be_written_ends_the_run_with_its_own_error() -> None:
    clock, journal = MonotonicClock(), Journal()

    def record(entry: Entry) -> None:
        if isinstance(entry, Ended) and len(journal.ends()) == 3:
            raise HarnessError("disk full")
        journal.record(entry)

    async with fleet_of(workers(2), clock) as fleet:
        with pytest.raises(HarnessError, match="disk full"):
            await run_scenario(
                scenario(load()),
                send=never,  # type: ignore[arg-type]
                counters=journal,
                record=record,
                clock=clock,
                load=fleet.load,
            )


async def test_a_mistake_in_the_load_is_reported_as_from_one_client() -> None:
    clock = MonotonicClock()
    mixed = Request("b", "text", continues="a")
    async with fleet_of(workers(2), clock) as fleet:
        phases = scenario(Phase("a", (Request("a", (1,)),)), Phase("b", (mixed,)))
        with pytest.raises(HarnessError, match="of different kinds"):
            await carried(phases, clock, fleet.load)


async def test_a_worker_that_is_lost_before_it_knows_where_to_send_ends_the_run() -> None:
    worker = Beside("worker-0")
    worker.kill()
    with pytest.raises(HarnessError, match="worker-0 was ended by signal 9"):
        async with fleet_of([worker], MonotonicClock()):
            raise AssertionError


def test_a_fleet_needs_no_event_loop_to_say_who_died() -> None:
    assert Fleet([], MonotonicClock()).died() == ()


async def test_references_are_handed_on_to_later_phases_and_in_workers() -> None:
    async def answer(request: Request, clock: Clock) -> Ended:
        ended = await at_once(request, clock)
        return replace(ended, reference=f'{{"of": "{request.request_id}"}}') if request.holds else ended

    def holding(name: str) -> Request:
        return Request(name, (1,), holds=True)

    clock = MonotonicClock()
    later = tuple(Request(f"later-{n}", (1,), reference_of=f"hold-{n}") for n in range(4))
    lost = Request("lost", (1,), reference_of="never-sent")
    first = Phase("hold", tuple(holding(f"hold-{n}") for n in range(4)), 4)
    # With one request in flight in each worker, the reference has come when it is to be sent.
    pairs = [(holding(f"pair-{n}"), Request(f"sends-{n}", (1,), reference_of=f"pair-{n}")) for n in range(2)]
    beside = Phase("beside", tuple(one for n in range(2) for one in (pairs[0][n], pairs[1][n])), 2)
    async with fleet_of(workers(2, answer), clock) as fleet:
        journal = await carried(scenario(first, Phase("later", (*later, lost), 4), beside), clock, fleet.load)
    sent = {one.request.request_id: one.request.reference for one in journal.sents()}
    assert [sent[f"later-{n}"] for n in range(4)] == [f'{{"of": "hold-{n}"}}' for n in range(4)]
    assert [sent[f"sends-{n}"] for n in range(2)] == [f'{{"of": "pair-{n}"}}' for n in range(2)]
    assert journal.ends()["lost"].ending is Ending.NOT_SENT


async def refused(request: Request, clock: Clock) -> Ended:
    await clock.sleep(0)
    return Ended(clock.now(), request.request_id, Outcome.FAIL, "503", 503, ending=Ending.REFUSED)


async def test_clients_of_workers_whose_requests_failed_are_held_back_as_those_of_one_client() -> None:
    clock, journal, permits = MonotonicClock(), Journal(), asyncio.Semaphore(0)
    waiting: list[int] = []

    async with fleet_of(workers(2, refused), clock) as fleet:

        async def loading(run: PhaseRun) -> None:
            async def after_failure() -> None:
                waiting.append(run.ended)
                await permits.acquire()

            run.after_failure = after_failure
            await fleet.load(run)

        run = asyncio.create_task(carried(scenario(load(12, 4)), clock, loading, journal=journal))
        await until(lambda: len(waiting) == 4)
        assert len(journal.sents()) == 4
        permits.release()
        await until(lambda: len(waiting) == 5)
        assert len(journal.sents()) == 5
        for _ in range(12):
            permits.release()
        await run
    assert len(journal.ends()) == len(waiting) == 12


async def test_an_interrupted_load_waits_for_no_client_that_is_held_back() -> None:
    clock, journal = MonotonicClock(), Journal()
    async with fleet_of(workers(2, refused), clock) as fleet:

        async def loading(run: PhaseRun) -> None:
            run.after_failure = asyncio.Event().wait  # type: ignore[assignment] # what it returns is not looked at
            await fleet.load(run)

        run = asyncio.create_task(carried(scenario(load(12, 4)), clock, loading, journal=journal))
        await until(lambda: len(journal.ends()) == 4)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert len(journal.ends()) == 4


async def test_a_load_whose_time_is_over_goes_on_for_faults_in_all_workers() -> None:
    clock, journal, lasting = MonotonicClock(), Journal(), [True]
    sending = workers(2)
    async with fleet_of(sending, clock) as fleet:

        async def loading(run: PhaseRun) -> None:
            run.goes_on = lambda: lasting[0]
            await fleet.load(run)

        phase = replace(load(100_000, 4), seconds=0.0)
        run = asyncio.create_task(carried(scenario(phase), clock, loading, journal=journal))
        await until(lambda: all(len(one.sent) > 20 for one in sending))
        lasting[0] = False
        await run
    assert len(journal.ends()) == len(journal.sents()) < 100_000
