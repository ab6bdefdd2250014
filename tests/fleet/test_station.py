"""A worker's own side, called as the main process calls it."""

import pickle
import time

from stations import DEPLOYMENT, Beside

from harness.fleet.messages import Batch, Part, Setup, unpack
from harness.history import Ended, Sent
from harness.run import Sending
from harness.scenario import Phase, Request

LOAD = Phase("load", tuple(Request(f"r-{n}", (n,)) for n in range(3)), 3)


async def ready(phase: Phase, zero: float) -> Beside:
    worker = Beside("worker-0")
    await worker.call("set_up", Setup(DEPLOYMENT, Sending(), zero))
    await worker.call("prepare", Part("s", phase))
    return worker


async def reported(worker: Beside, phase: Phase) -> tuple[list[Sent | Ended], Batch]:
    known = {one.request_id: one for one in phase.requests}
    entries: list[Sent | Ended] = []
    while True:
        batch = pickle.loads(await worker.call("fetch"))  # noqa: S301 - pickled by the test's own worker
        entries += [unpack(packed, known) for _, packed in batch.reports]
        if batch.last:
            return entries, batch


async def test_a_worker_that_begins_late_keeps_the_common_schedule() -> None:
    zero = time.monotonic() - 100.0
    phase = Phase("load", LOAD.requests, 3, due=(0.0, 0.25, 50.125))
    worker = await ready(phase, zero)
    await worker.call("begin", 50.0)
    entries, _ = await reported(worker, phase)
    assert [one.intended_at for one in entries if isinstance(one, Sent)] == [50.0, 50.25, 100.125]
    await worker.close()


async def test_nothing_is_sent_before_the_common_beginning() -> None:
    zero = time.monotonic()
    worker = await ready(LOAD, zero)
    await worker.call("begin", 0.3)
    entries, last = await reported(worker, LOAD)
    assert min(one.at for one in entries) >= 0.3
    assert last.health is not None
    await worker.close()


async def test_everything_up_to_a_batchs_time_has_been_reported() -> None:
    worker = await ready(LOAD, time.monotonic())
    await worker.call("begin", 0.0)
    entries, last = await reported(worker, LOAD)
    assert max(one.at for one in entries) <= last.until
    assert [type(one) for one in entries].count(Ended) == 3
    await worker.close()


async def test_an_interrupted_part_ends_without_figures_of_its_health() -> None:
    worker = await ready(LOAD, time.monotonic())
    await worker.call("begin", 1e6)
    await worker.call("interrupt")
    entries, last = await reported(worker, LOAD)
    assert (entries, last.health, last.trouble) == ([], None, "")
    await worker.close()
