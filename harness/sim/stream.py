"""A streamed answer as payloads of server-sent events, and how planted bugs of the stream bend it. No I/O."""

import json

from harness.sim.answers import Job
from harness.sim.intake import Refused
from harness.sim.server import SimServer

DONE = b"[DONE]"


class Stream:
    """One job's. ``ready`` after each step, ``end`` once the job has finished; nothing is given twice."""

    def __init__(self, server: SimServer, job: Job) -> None:
        self._server, self._job = server, job
        self._burst = server.bends_stream("burst", job)
        self.cut = False
        """Whether it ended without its end marker."""

    def ready(self) -> list[bytes]:
        """What can be passed on now."""
        if self._burst or self._job.failed:
            return []
        return [_payload(chunk) for chunk in self._job.chunks()]

    def end(self) -> list[bytes]:
        """All that is left, the end marker last."""
        self.cut = self._server.bends_stream("stream_cut", self._job)
        if self.cut:
            return []
        if self._job.failed or self._server.bends_stream("error_in_200", self._job):
            return [_payload(Refused("Internal server error", 500).body()), DONE]
        chunks = [_payload(chunk) for chunk in self._job.chunks()]
        usage = [_payload(self._job.usage_chunk())] if self._job.order.include_usage else []
        return [*chunks, *usage, DONE]


def _payload(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
