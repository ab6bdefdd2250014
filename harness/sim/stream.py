"""Turns a streamed answer into the payloads of server-sent events and applies planted bugs of the stream; no I/O."""

import json

from harness.sim.answers import Job
from harness.sim.intake import Refused
from harness.sim.server import SimServer

DONE = b"[DONE]"


class Stream:
    """The stream of one job. Call ``ready`` after each step and ``end`` once the job has finished."""

    def __init__(self, server: SimServer, job: Job) -> None:
        self._server, self._job = server, job
        self._burst = server.strikes_stream("burst", job)
        self.cut = False
        """Whether a planted bug ended the stream without the end marker."""

    def ready(self) -> list[bytes]:
        """Return the new payloads that can be sent now."""
        if self._burst or self._job.failed:
            return []
        return [_payload(chunk) for chunk in self._job.chunks()]

    def end(self) -> list[bytes]:
        """Return the remaining payloads, ending with the end marker."""
        self.cut = self._server.strikes_stream("stream_cut", self._job)
        if self.cut:
            return []
        if self._job.failed or self._server.strikes_stream("error_in_200", self._job):
            return [_payload(Refused("Internal server error", 500).body()), DONE]
        chunks = [_payload(chunk) for chunk in self._job.chunks()]
        usage = [_payload(self._job.usage_chunk())] if self._job.request.include_usage else []
        return [*chunks, *usage, DONE]


def _payload(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
