"""The history of a run: everything that happened, in the order in which the harness learned of it.

A run is judged from its history and the deployment's facts only, so that a later version can judge a stored run again,
offline. Entries are frozen. Times are seconds on the run's own monotonic clock; ``RunStarted.wall`` ties it to the
calendar.

An *operation* is one request. As in Jepsen, it is recorded twice, when it is sent and when it ends, and has one of
three outcomes. If the harness is killed, operations remain without an end; their outcome is ``INFO``.

Once an entry has been written to the run's journal, what it has for each token (prompt, answer, log-probabilities,
times) may lie there alone; it is read when it is asked for (:mod:`harness.deferred`). So checkers may ask every
operation for its ids, outcome and times at no cost, but should ask for tokens once, and keep numbers rather than
operations' tokens.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, TypeVar, cast

from msgspec import Meta, Struct

from harness.deferred import Deferred, tokens_put_away
from harness.scenario import Request, Route

END_SPELLED = 32
"""Tokens at a prompt's end whose spelling is kept: a stop string is seldom longer."""


class Outcome(StrEnum):
    """Whether an operation completed, and if not, whether it may have had an effect on the engine."""

    OK = "ok"
    """Completed: the whole answer arrived."""
    FAIL = "fail"
    """Certainly had no effect on the engine: refused with a 4xx, or never connected."""
    INFO = "info"
    """The effect on the engine is unknown: a timeout, a broken stream, a 5xx, an error event inside a 200."""


class Ending(StrEnum):
    """How an operation ended, in more detail than its outcome."""

    COMPLETED = "completed"
    """The whole answer arrived."""
    REFUSED = "refused"
    """The server answered with a status other than 200, or did not empty its prefix cache."""
    ERROR_INSIDE = "error_inside"
    """The server answered 200, and its stream or body contains an error."""
    UNFINISHED = "unfinished"
    """The server answered 200, and its answer is incomplete or malformed."""
    UNREADABLE = "unreadable"
    """The answer has status 200 and a compression that the harness did not ask for and cannot undo."""
    CUT = "cut"
    """The connection broke after the request was sent."""
    LEFT = "left"
    """The harness's client closed the connection, as the run had planned (``Request.leaves``)."""
    TIMED_OUT = "timed_out"
    """The client's time limit passed."""
    NOT_CONNECTED = "not_connected"
    """No connection could be made; nothing was sent."""
    NOT_SENT = "not_sent"
    """The harness could not make the request, for example because the turn before has no answer."""
    CLIENT_CRASHED = "client_crashed"
    """The harness's client failed."""
    INTERRUPTED = "interrupted"
    """The run was cancelled."""
    NO_END = "no_end"
    """The history has no end of the operation: the harness was killed."""
    UNRECORDED = "unrecorded"
    """The default of :attr:`Ended.ending`, which is replaced when the entry is made."""


TokenId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""A token id that is read from a file has at most 64 bits."""


class TokenLogprob(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Log-probabilities of the token at one position and of the best alternatives, as far as reported; nats.

    A history has one for each token. As a ``Struct`` that is written as an array, it is read 30 times as fast as a
    dataclass, and Python's garbage collector need not look at it.
    """

    token_id: TokenId
    logprob: float
    """NaN if the server sent null: it computed NaN, which JSON has no number for."""
    runner_up: float | None = None
    """Log-probability of the best *other* token."""
    runner_up_id: TokenId | None = None
    """Token id of the runner-up."""
    third: float | None = None
    """Log-probability of the third token that is reported: for a prompt token, vLLM adds the two best tokens."""
    third_id: TokenId | None = None

    @property
    def named(self) -> dict[int, float]:
        """Log-probabilities by token id, of all tokens that the server reported with an id."""
        found = ((self.token_id, self.logprob), (self.runner_up_id, self.runner_up), (self.third_id, self.third))
        return {token: logprob for token, logprob in found if token is not None and logprob is not None}


Named = tuple[tuple[int, float], ...]
"""Tokens and their log-probabilities for one position, the sampled token first: pairs of token id and nats. NaN where
the server sent null."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The server's own count, from the answer's ``usage``; tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    """Prompt tokens found in a prefix cache or loaded by a connector (``prompt_tokens_details``). None: not reported.
    vLLM reports them if started with ``--enable-prompt-tokens-details``, and leaves out a 0."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One completion of a request; there are several if n > 1."""

    token_ids: tuple[int, ...]
    text: str = ""
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob | None, ...] = ()
    """One per token id, None where not reported; empty if none was reported."""
    stop_reason: int | str | None = None
    """The stop string or stop token id at which vLLM stopped. None: the model's end token, length, or not reported."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """First entry: what is needed to read the history and to repeat the run."""

    wall: float
    """Calendar time of ``at == 0``: seconds since 1970."""
    argv: tuple[str, ...]
    seed: int
    harness_version: str
    commit: str | None
    scenarios: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of a scenario begins."""

    at: float
    scenario: str
    phase: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An operation begins. The whole request is kept, so that a stored run can be judged."""

    at: float
    request: Request
    scenario: str
    phase: str
    intended_at: float
    """The time in the load's schedule; latencies count from here (coordinated omission)."""
    allowed_at: float | None = None
    """When the limit of requests in flight allowed the sending, if that was later than ``intended_at``: waiting for the
    limit is no fault of the client. None: at ``intended_at``."""


@dataclass(frozen=True, slots=True)
class Ended(Deferred):
    """An operation ends."""

    at: float
    request_id: str
    outcome: Outcome
    cause: str = ""
    """Why the outcome is not OK: status and beginning of the body, or the transport's error."""
    status: int | None = None
    """HTTP status; None if no answer came."""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    """The prompt as the server tokenized it; None if not reported."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """One per prompt token (None for the first), if the request asked for them."""
    token_times: tuple[float, ...] = ()
    """Arrival of each output token of the first choice, on the clock of ``at``; empty if not streamed. If the answer
    has no token ids: arrival of each piece of text."""
    tokens_per_chunk: tuple[int, ...] = ()
    """Tokens in each chunk of the stream: ITL per chunk is not ITL per token."""
    prefill_server: str | None = None
    """URL of the prefill server that the proxy chose, if the proxy reports it."""
    decode_server: str | None = None
    prompt_end: tuple[str, ...] = ()
    """The prompt's last tokens (END_SPELLED at most) as the server spells them in ``prompt_logprobs``. In teacher
    forcing, the prompt ends with the answer that is verified."""
    ending: Ending = Ending.UNRECORDED
    """Set from outcome and status if it is not given."""
    first_logprobs: Named = ()
    """Every token that the answer names for the first output token of the first choice. Empty if no log-probabilities
    or no token ids were reported, or if they cannot be assigned to that token for certain."""
    prefill_first: Named = ()
    """The same as the prefill server reported it to the proxy, from its own KV; its sampled token may be another one.
    Empty if the proxy hands on nothing of the prefill server's answer."""
    proxy_seconds: float | None = None
    """Seconds that the proxy itself took before it asked the decode server, if it reports them."""
    prefill_seconds: float | None = None
    """Seconds in which the prefill server answered the proxy, if the proxy reports them."""
    reference: str | None = None
    """For a request that ``holds``: the reference (``kv_transfer_params``) that the prefill server gave, as JSON."""

    def __post_init__(self) -> None:
        if self.ending is Ending.UNRECORDED:
            object.__setattr__(self, "ending", _ending(self.outcome, self.status))

    @property
    def output_tokens(self) -> int:
        """Tokens of all choices together, known without reading them from the journal."""
        known = tokens_put_away(self)
        return sum(len(choice.token_ids) for choice in self.choices) if known is None else known


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a Prometheus exposition: a family's sample name, its labels and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scraped:
    """One reading of a server's ``/metrics``, restricted to the engine's own families."""

    at: float
    server: str
    """The server's name: ``prefill-0``, ``decode-0``, …"""
    label: str
    """``before`` or ``after`` the phase."""
    scenario: str
    phase: str
    samples: tuple[Sample, ...]
    settled: bool = True
    """Whether the deployment had settled. Otherwise, counters of this reading are not compared."""
    unsettled_because: str = ""
    declared: tuple[str, ...] = ()
    """Sample names that are declared without a sample: there was no event yet, so their value is 0."""


@dataclass(frozen=True, slots=True)
class ScrapeFailed:
    """A reading that failed. Every check that needs it is ``unknown``."""

    at: float
    server: str
    label: str
    scenario: str
    phase: str
    cause: str


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How well the client kept up while it sent the load: a slow client must not be taken for slow servers."""

    at: float
    worst_loop_lag: float
    """Longest delay of the event loop, seconds."""
    worst_send_delay: float
    """Largest ``Sent.at - Sent.intended_at`` that the concurrency limit does not explain, seconds."""
    mean_loop_lag: float
    """Mean delay of the event loop, seconds: the average delay with which a token's arrival is recorded."""
    cpu_share: float
    """CPU seconds of the harness's process per second; near 1, the client limits the load."""
    worker: str = ""
    """The worker that sent a part of the load; empty: the harness's main process."""
    open_files: int | None = None
    """Most files and sockets that the process had open at a time; None: not known."""
    file_limit: int | None = None
    """Most files and sockets that it may have open; None: no limit."""


@dataclass(frozen=True, slots=True)
class ClockCompared:
    """The clock of a worker that sent a part of a phase, compared with the run's clock by timed round trips.

    The worker's clock was corrected before the phase began. So its times are those of the run's clock, but for
    ``uncertainty`` and ``drift``; its latencies are differences of its own times, and exact.
    """

    at: float
    worker: str
    ahead: float
    """Seconds by which the worker's own clock is ahead of the run's clock; removed from all its times. 0: no difference
    could be measured, as between processes of one machine."""
    uncertainty: float
    """Seconds by which ``ahead`` may be wrong: half of the shortest round trip."""
    drift: float = 0.0
    """Seconds by which the corrected clock was ahead at the end of the phase."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A message for a reader of the history, such as progress or a warning. Checkers ignore it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class NoisyOutput:
    """One control output of an earlier run compared with its teacher forcing; nats, one number per token."""

    regret: tuple[float, ...]
    drift: tuple[float, ...]
    margin_error: tuple[float, ...]
    margin: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NoiseMeasured:
    """Noise that earlier runs measured with control requests on the same deployment."""

    at: float
    origin: str
    """File, number of outputs and age, for display."""
    outputs: tuple[NoisyOutput, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the servers choose tokens and end answers, beyond the parameters of each request."""

    at: float
    end_token_ids: tuple[int, ...]
    """Special tokens of the model's files, which end an answer before its length. Empty if no files were found."""
    shifted_by: tuple[str, ...] = ()
    """Fields of every request body that make a server choose tokens other than the best: a penalty, a bias."""
    ends_complete: bool = True
    """Whether ``end_token_ids`` is complete. If not, the servers may have read more files than the harness."""


@dataclass(frozen=True, slots=True)
class VerificationPlanned:
    """The load has ended and its verification begins: what it means to look at, and what it may cost."""

    at: float
    outputs: int
    """Outputs of the load that are to be teacher-forced or compared with a reference."""
    expected: float
    """Seconds that verification is expected to take."""
    seconds: float | None = None
    """Seconds that it may take; None: no limit."""
    tokens: int | None = None
    """Engine tokens that it may compute; None: no limit."""


class Tolerated(StrEnum):
    """What a fault may do to a deployment that handles it well. It never includes wrong outputs or hung requests."""

    ERRORS = "errors"
    """Requests during the fault end with an error, or without an answer."""
    RESTART = "restart"
    """The target's counters begin again from zero, and its caches are empty."""
    FAILED_TRANSFERS = "failed-transfers"
    """KV transfers fail, or requests expire on a prefill server; a decode server may compute such prompts itself."""
    EVICTION = "eviction"
    """Blocks are evicted or requests preempted, so that fewer tokens are found in caches and more are computed."""
    UNREAD_METRICS = "unread-metrics"
    """Counters cannot be read during the fault."""


@dataclass(frozen=True, slots=True)
class FaultPlanned:
    """A fault that the run means to cause."""

    at: float
    fault: str
    """The fault's name in this run: ``pause-1``."""
    fault_kind: str
    """The kind, as in ``--fault``: ``pause``. (``kind`` is the entry's own kind in the journal.)"""
    target: str
    """The server, link or load that the fault is about: ``decode-0``, ``proxy``."""
    text: str
    """What the fault does, in words."""
    tolerates: tuple[Tolerated, ...] = ()
    """What may happen to the requests that overlap the fault."""
    scenario: str = ""
    phase: str = ""
    """The phase during which the fault is caused."""
    provokes: str = ""
    """The counter that must have grown in the phase, or the situation that the run was to test did not occur."""
    recovery_s: float = 60.0
    """Seconds after the healing within which the deployment must serve requests again."""


@dataclass(frozen=True, slots=True)
class FaultBegan:
    """The harness begins to do what the fault does."""

    at: float
    fault: str


@dataclass(frozen=True, slots=True)
class FaultProved:
    """It was observed that the fault took hold: without this entry, nobody knows whether the run tested anything."""

    at: float
    fault: str
    evidence: str
    """What was observed, with figures: a process's state, its new id, bytes that a relay held back."""


@dataclass(frozen=True, slots=True)
class FaultHealed:
    """The fault was undone, or could not be undone."""

    at: float
    fault: str
    healed: bool
    text: str
    """What was observed of the healing, or why it failed; for a fault that was not proved, also why."""


@dataclass(frozen=True, slots=True)
class DeadProcess:
    """A process that the harness had started and that ended by itself."""

    name: str
    """``prefill-0``, ``proxy``, ..."""
    text: str
    """One sentence or more: the name, the exit status, and the end of the process's log."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Last entry of a run that was not killed."""

    at: float
    interrupted: bool = False
    """Whether the user or an error ended the run early."""
    died: tuple[DeadProcess, ...] = ()
    """Processes that the harness had started and that ended by themselves."""


Entry = (
    RunStarted
    | PhaseStarted
    | Sent
    | Ended
    | Scraped
    | ScrapeFailed
    | ClientHealth
    | ClockCompared
    | Noted
    | NoiseMeasured
    | Decoding
    | VerificationPlanned
    | FaultPlanned
    | FaultBegan
    | FaultProved
    | FaultHealed
    | RunEnded
)

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Operation:
    """A request and its end; the outcome is ``INFO`` if the history has no end."""

    sent: Sent
    ended: Ended

    @property
    def request(self) -> Request:
        """The request that was sent."""
        return self.sent.request

    @property
    def outcome(self) -> Outcome:
        """The operation's outcome."""
        return self.ended.outcome

    @property
    def prompt_token_ids(self) -> tuple[int, ...] | None:
        """The prompt's token ids as sent, or as reported by the server if a text was sent; None if not reported."""
        prompt = self.request.prompt
        if isinstance(prompt, str):
            return self.ended.prompt_token_ids
        return _ids_alone(prompt) or self.ended.prompt_token_ids

    @property
    def prompt_tokens(self) -> int:
        """The number of ``prompt_token_ids``, 0 if they are not known; mostly known without reading them."""
        return tokens_put_away(self.request) or len(self.prompt_token_ids or ())


@dataclass(frozen=True, slots=True)
class History:
    """A run's entries, and the queries that checkers need."""

    entries: tuple[Entry, ...]
    _operations: tuple[Operation, ...] = field(init=False, repr=False, compare=False)
    _others: tuple[Entry, ...] = field(init=False, repr=False, compare=False)
    """The entries that are no part of an operation: a small part of them all."""

    def __post_init__(self) -> None:
        self._set(tuple(_pair(self.entries)), tuple(_others(self.entries)))

    def _set(self, operations: tuple[Operation, ...], others: tuple[Entry, ...]) -> None:
        object.__setattr__(self, "_operations", operations)
        object.__setattr__(self, "_others", others)

    def followed_by(self, later: Iterable[Entry]) -> "History":
        """The history of these and of later entries, equal to one that is made from all of them at once.

        Operations that have ended stay the same objects, and are not looked at again: a load of 100,000 requests is
        followed by dozens of small steps of verification.
        """
        further = History(tuple(later))
        ended = {entry.request_id for entry in further.entries if isinstance(entry, Ended)}
        ended.difference_update(operation.request.request_id for operation in further._operations)
        if ended:
            # Requests of the earlier part have ended.
            return History(self.entries + further.entries)
        made = object.__new__(History)
        object.__setattr__(made, "entries", self.entries + further.entries)
        made._set(self._operations + further._operations, self._others + further._others)
        return made

    def operations(
        self, *, scenario: str | None = None, phase: str | None = None, route: Route | None = None
    ) -> tuple[Operation, ...]:
        """Operations in the order in which they were sent, filtered by the given arguments."""
        if scenario is None and phase is None and route is None:
            return self._operations
        return tuple(
            operation
            for operation in self._operations
            if (scenario is None or operation.sent.scenario == scenario)
            and (phase is None or operation.sent.phase == phase)
            and (route is None or operation.request.route == route)
        )

    def scrapes(self, *, scenario: str, phase: str, label: str) -> dict[str, Scraped]:
        """Readings by server name, without servers whose reading failed."""
        return {
            entry.server: entry
            for entry in self._others
            if isinstance(entry, Scraped) and (entry.scenario, entry.phase, entry.label) == (scenario, phase, label)
        }

    def of(self, kind: type[E]) -> Iterator[E]:
        """Entries of one kind, in order."""
        entries = self.entries if issubclass(kind, Sent | Ended) else self._others
        return (entry for entry in entries if isinstance(entry, kind))

    @property
    def ended_early(self) -> bool:
        """Whether the run was interrupted or killed, or stopped by an error."""
        return all(entry.interrupted for entry in self.of(RunEnded))

    @property
    def died(self) -> tuple[DeadProcess, ...]:
        """Processes that the harness had started and that ended by themselves; usually none."""
        return tuple(one for entry in self.of(RunEnded) for one in entry.died)


def _ids_alone(prompt: tuple[object, ...]) -> tuple[int, ...]:
    # A prompt holds token ids or messages, never both. Checkers call this many times for each operation.
    return cast("tuple[int, ...]", prompt) if prompt and isinstance(prompt[0], int) else ()


def _pair(entries: Iterable[Entry]) -> Iterator[Operation]:
    ends = {entry.request_id: entry for entry in entries if isinstance(entry, Ended)}
    for entry in entries:
        if isinstance(entry, Sent):
            yield Operation(entry, ends.get(entry.request.request_id) or _no_end(entry))


def _others(entries: Iterable[Entry]) -> Iterator[Entry]:
    return (entry for entry in entries if not isinstance(entry, Sent | Ended))


def _no_end(sent: Sent) -> Ended:
    cause = "the history has no end of this request"
    return Ended(sent.at, sent.request.request_id, Outcome.INFO, cause, ending=Ending.NO_END)


def _ending(outcome: Outcome, status: int | None) -> Ending:
    if outcome is Outcome.OK:
        return Ending.COMPLETED
    if status is None:
        return Ending.NO_END
    return Ending.UNFINISHED if status == 200 else Ending.REFUSED
