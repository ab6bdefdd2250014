"""The requests of the load as rows, one each: for tables, for files that other programs read, and for charts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from harness.facts import Deployment, Role, Server, serving
from harness.history import Ending, History, Operation, Outcome
from harness.load.latency import time_per_output_token
from harness.memo import once
from harness.reports.measured import under_test
from harness.verdict import FindingKind, Judgement
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.evidence import look_at_outputs


class OutputStatus(StrEnum):
    """What is known of a request's output."""

    RIGHT = "right"
    TIE = "tie"
    """Right; it differs only where two tokens are equally good within the noise."""
    DOUBTFUL = "doubtful"
    """Beyond a limit that noise exceeds in one run of ten. Not counted as wrong."""
    WRONG = "wrong"
    UNVERIFIED = "unverified"
    """Its verification failed."""
    NOT_SAMPLED = "not sampled"
    """It was not to be verified."""
    NONE = "no output"
    """The request did not complete, and no part of its output was verified."""


_STATUS = {
    Match.EXACT: OutputStatus.RIGHT,
    Match.TIE: OutputStatus.TIE,
    Match.MISMATCH: OutputStatus.WRONG,
    Match.UNVERIFIED: OutputStatus.UNVERIFIED,
    Match.LEFT_OUT: OutputStatus.NOT_SAMPLED,
}


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request of the load through the proxy. Times are seconds on the run's clock, latencies seconds."""

    request_id: str
    scenario: str
    phase: str
    due: float
    """When it should have been sent by the schedule."""
    sent: float
    first_token: float | None
    """When its first output token arrived; None if nothing was streamed."""
    ended: float
    """When its last token arrived, or its body, or when it failed."""
    outcome: Outcome
    ending: Ending
    status: int | None
    """HTTP status; None if no answer came."""
    cause: str
    """Why it did not complete; empty if it did."""
    prompt_tokens: int
    output_tokens: int
    prefill_server: str | None
    """Name of the server, or its URL if the deployment lists no such server. None: there are several, and the proxy did
    not report which."""
    decode_server: str | None
    proxy_seconds: float | None
    """What the proxy itself took before it asked the decode server; None if it did not report it."""
    prefill_seconds: float | None
    """In which the prefill server answered the proxy; None if the proxy did not report it."""
    output: OutputStatus
    why: str
    """What is wrong with the output, why it is doubtful, or why it could not be verified; empty otherwise."""
    token: int | None
    """Index of the first wrong output token, from 0; None if no single token is known to be wrong."""
    block: int | None
    """Number of the first wrong KV block of the prompt, from 1; None if unknown."""
    owner: str | None
    """Id of the request whose KV the output was made from."""
    tpot: float | None = None
    """Time per output token after the first, of the first choice. None if the request did not complete or has fewer
    than two streamed tokens."""

    @property
    def ttft(self) -> float | None:
        """Time to first token, from when the request was due. None if it did not complete or was not streamed."""
        return None if self.first_token is None or self.outcome is not Outcome.OK else self.first_token - self.due

    @property
    def e2e(self) -> float | None:
        """E2E latency, from when the request was due. None if it did not complete."""
        return self.ended - self.due if self.outcome is Outcome.OK else None


@once
def request_rows(deployment: Deployment, history: History, judgement: Judgement) -> tuple[RequestRow, ...]:
    """The requests that are measured, in the order in which they were sent."""
    compared = {one.request_id: one for one in look_at_outputs(history).compared}
    found = _Found.of(judgement)
    servers = _Servers(_naming(deployment.of(Role.PREFILL)), _naming(deployment.of(Role.DECODE)))
    return tuple(
        _row(operation, compared.get(operation.request.request_id), found, servers) for operation in under_test(history)
    )


@dataclass(frozen=True, slots=True)
class _Servers:
    """The name of the server at a URL, by role."""

    prefill: "_Naming"
    decode: "_Naming"


_Naming = Callable[[str | None], str | None]


def _naming(servers: Sequence[Server]) -> _Naming:
    @cache
    def named(url: str | None) -> str | None:
        place = serving(servers, url)
        return url if place is None else servers[place].name

    return named


@dataclass(frozen=True, slots=True)
class _Found:
    """What findings say of requests, by request id."""

    texts: Mapping[str, str]
    """What is wrong with outputs that no comparison shows to be wrong."""
    blocks: Mapping[str, int]
    owners: Mapping[str, str]

    @classmethod
    def of(cls, judgement: Judgement) -> "_Found":
        every = [one for check in judgement.checks for one in check.findings if one.request]
        wrong = [one for one in every if one.kind in (FindingKind.WRONG_OUTPUT, FindingKind.LEAK)]
        return cls(
            {str(one.request): one.text for one in wrong},
            {str(one.request): one.block for one in every if one.block is not None},
            {str(one.request): one.owner for one in wrong if one.owner is not None},
        )


def _row(operation: Operation, one: Compared | None, found: _Found, servers: _Servers) -> RequestRow:
    sent, ended, who = operation.sent, operation.ended, operation.request.request_id
    status, why = _output(one, found.texts.get(who, ""))
    times = ended.token_times
    return RequestRow(
        request_id=who,
        scenario=sent.scenario,
        phase=sent.phase,
        due=sent.intended_at,
        sent=sent.at,
        first_token=times[0] if times else None,
        ended=times[-1] if times and operation.outcome is Outcome.OK else ended.at,
        outcome=operation.outcome,
        ending=ended.ending,
        status=ended.status,
        cause=ended.cause,
        prompt_tokens=ended.usage.prompt_tokens if ended.usage else operation.prompt_tokens,
        output_tokens=ended.output_tokens,
        prefill_server=servers.prefill(ended.prefill_server),
        decode_server=servers.decode(ended.decode_server),
        proxy_seconds=ended.proxy_seconds,
        prefill_seconds=ended.prefill_seconds,
        output=status,
        why=why,
        token=None if one is None or one.match is not Match.MISMATCH else one.first,
        block=found.blocks.get(who),
        owner=found.owners.get(who),
        tpot=time_per_output_token(ended) if operation.outcome is Outcome.OK else None,
    )


def _output(one: Compared | None, finding: str) -> tuple[OutputStatus, str]:
    if one is None:
        return (OutputStatus.WRONG, finding) if finding else (OutputStatus.NONE, "")
    if one.match is Match.MISMATCH or finding:
        return OutputStatus.WRONG, finding or one.text
    if one.doubt:
        return OutputStatus.DOUBTFUL, one.doubt
    return _STATUS[one.match], one.text if one.match is Match.UNVERIFIED else ""
