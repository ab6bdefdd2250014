"""The operations of one phase that is sent from several workers: recorded in order, each with an end."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from harness.fleet.merging import InOrder
from harness.fleet.messages import Batch, unpack
from harness.history import DeadProcess, Ended, Ending, Entry, Outcome, Sent
from harness.run.runner import PhaseRun
from harness.scenario import Phase


class Operations:
    """Records what workers report, and knows which operations are in flight and which requests were never sent."""

    def __init__(self, run: PhaseRun, parts: Mapping[str, Phase], failed: Callable[[str], None]) -> None:
        """``parts``: each worker's part of the phase, by the worker's name, with which ``failed`` is called.

        It is called for each request of the phase's own that did not complete.
        """
        self._failed = failed
        self._run = run
        self._in_order: InOrder[bytes] = InOrder(parts)
        self._known = {one.request_id: one for one in (*run.phase.requests, *run.phase.background)}
        self._own = {one.request_id for one in run.phase.requests}
        self._worker = {
            one.request_id: worker for worker, part in parts.items() for one in (*part.requests, *part.background)
        }
        self._in_flight: dict[str, Sent] = {}
        self.unsent = set(self._known)
        """Ids of requests that no worker reported as sent."""

    def record(self, entry: Entry) -> None:
        """Record any other entry."""
        self._run.record(entry)

    def reported(self, worker: str, batch: Batch) -> None:
        """Record a worker's reports, as far as no other worker can report anything earlier."""
        self._in_order.add(worker, batch.reports, batch.until)
        if batch.last:
            self._in_order.close(worker)
        self._record_ready()
        if batch.health is not None:
            self.record(replace(batch.health, worker=worker))

    def lost(self, worker: str, how: str) -> DeadProcess:
        """End the operations that a lost worker had in flight: nobody knows what became of them."""
        self._record(self._in_order.lose(worker))
        self._record_ready()
        text = f"{worker}, which sent a part of the load, {how}"
        open_ = [request_id for request_id in self._in_flight if self._worker[request_id] == worker]
        self._end(open_, Ending.CLIENT_CRASHED, text)
        left = sum(self._worker[request_id] == worker for request_id in self.unsent)
        return DeadProcess(
            worker,
            f"{text}: {len(open_)} of its requests were in flight, and {left} more were not reported as sent, of which "
            "it may have sent some",
        )

    def end_all(self) -> None:
        """Record what still waits. Operations that have no end now were in flight when the run was interrupted."""
        for worker in set(self._worker.values()):
            self._in_order.close(worker)
        self._record_ready()
        self._end(list(self._in_flight), Ending.INTERRUPTED, "interrupted")

    def _end(self, request_ids: Iterable[str], ending: Ending, cause: str) -> None:
        for request_id in request_ids:
            self._keep(Ended(self._run.clock.now(), request_id, Outcome.INFO, cause, ending=ending))

    def _record_ready(self) -> None:
        self._record(self._in_order.ready())

    def _record(self, reports: Iterable[bytes]) -> None:
        for packed in reports:
            self._keep(unpack(packed, self._known))

    def _keep(self, entry: Sent | Ended) -> None:
        self._run.record(entry)
        if isinstance(entry, Sent):
            self._in_flight[entry.request.request_id] = entry
            self.unsent.discard(entry.request.request_id)
            return
        sent = self._in_flight.pop(entry.request_id)
        self._run.conversations.remember(sent.request, entry)
        self._run.references.remember(sent.request, entry)
        self._run.failed += entry.outcome is not Outcome.OK and entry.ending is not Ending.LEFT
        if entry.request_id in self._own:
            self._run.ended += 1
            self._run.observer.advance(self._run.ended, len(self._own), self._run.failed)
            if entry.outcome is not Outcome.OK:
                self._failed(self._worker[entry.request_id])
