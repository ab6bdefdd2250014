"""The history of a run: everything that happened, in the order in which it was learned.

A run is judged from its history and nothing else, so that a stored run can be judged again, offline, by a
later version. Entries are frozen; times are seconds on the run's own monotonic clock (``RunStarted.wall``
anchors it to the calendar).

An *operation* is one request. As in Jepsen it is recorded twice, when it is sent and when it ends, and ends
in one of three outcomes. A harness that is killed leaves operations without an end: they count as ``INFO``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from harness.scenario import Request, Route

END_SPELLED = 32
"""Tokens of a prompt's end whose spelling is kept: a stop string is seldom longer."""


class Outcome(StrEnum):
    """How an operation ended."""

    OK = "ok"
    """Completed: the whole answer arrived."""
    FAIL = "fail"
    """Certainly had no effect on the engine: refused with a 4xx, or never connected."""
    INFO = "info"
    """Nobody knows: a timeout, a cut stream, a 5xx, an error event inside a 200."""


class Ending(StrEnum):
    """How an operation came to its end, and by whom. Recorded where it is known: nobody reads it out of a text."""

    COMPLETED = "completed"
    """By the server: the whole answer."""
    REFUSED = "refused"
    """By the server: a status other than 200, or a prefix cache that it did not empty."""
    ERROR_INSIDE = "error_inside"
    """By the server: a 200 whose stream or body says an error."""
    UNFINISHED = "unfinished"
    """By the server: a 200 whose answer is not whole, or cannot be read."""
    UNREADABLE = "unreadable"
    """By the harness: a 200 that something on the way compressed as the harness cannot read, unasked."""
    CUT = "cut"
    """By the other side: the connection broke after the request was sent."""
    TIMED_OUT = "timed_out"
    """By the client, whose own time limit was over."""
    NOT_CONNECTED = "not_connected"
    """No connection came about; nothing was sent."""
    NOT_SENT = "not_sent"
    """By the harness: the request could not be made, as when the turn before it has no answer."""
    CLIENT_CRASHED = "client_crashed"
    """By the harness: its client failed."""
    INTERRUPTED = "interrupted"
    """By the harness, or its user: the run was cancelled."""
    NO_END = "no_end"
    """The history holds no end: the harness was killed."""
    UNRECORDED = "unrecorded"
    """The default of :attr:`Ended.ending`, which is replaced when the entry is made."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One served token's log-probability, in nats, and its runner-up's if the server told."""

    token_id: int
    logprob: float
    """NaN where the server sent null: it computed NaN, which JSON cannot carry."""
    runner_up: float | None = None
    """Log-probability of the best *other* token, in nats; None when the server did not say."""
    runner_up_id: int | None = None
    """Which token that is, where ids are told."""
    third: float | None = None
    """Of the best token but these two: of a prompt's token, vLLM tells the two best beside its own."""
    third_id: int | None = None

    @property
    def named(self) -> dict[int, float]:
        """Log-probability of each token that the server named with its id."""
        told = ((self.token_id, self.logprob), (self.runner_up_id, self.runner_up), (self.third_id, self.third))
        return {token: logprob for token, logprob in told if token is not None and logprob is not None}


@dataclass(frozen=True, slots=True)
class Usage:
    """The server's own count, from the answer's ``usage``; tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    """Prompt tokens that were not computed for this answer, but found in a prefix cache or brought by a connector
    (``prompt_tokens_details``). None: the server does not say. vLLM says it where it was started with
    ``--enable-prompt-tokens-details``, and leaves a 0 out."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One completion of a request (several when n > 1)."""

    token_ids: tuple[int, ...]
    text: str = ""
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob | None, ...] = ()
    """One per token id, None where the server told none for it; empty where it told none at all."""
    stop_reason: int | str | None = None
    """What vLLM stopped at: a stop string, or a token id that was to stop it. None: the model's end token, or length,
    or the server does not say."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """First entry: what is needed to read the rest, and to do it again."""

    wall: float
    """Calendar time of ``at == 0``: seconds since 1970."""
    argv: tuple[str, ...]
    seed: int
    harness_version: str
    commit: str | None
    scenarios: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """The requests that follow belong to this phase of this scenario."""

    at: float
    scenario: str
    phase: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An operation begins. The request itself is kept: a stored run needs nothing else to be judged."""

    at: float
    request: Request
    scenario: str
    phase: str
    intended_at: float
    """When the load's schedule wanted it sent; latencies count from here (coordinated omission)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An operation ends."""

    at: float
    request_id: str
    outcome: Outcome
    cause: str = ""
    """Why it is not OK, in words: status and body's beginning, or the transport's error."""
    status: int | None = None
    """HTTP status; None when no answer came."""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    """The prompt as the server tokenized it; None when the server did not say."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """One per prompt token (the first has none), when they were asked for."""
    token_times: tuple[float, ...] = ()
    """Arrival of each output token of the first choice, same clock as ``at``; empty when not streamed. Where the answer
    has no token ids, of each piece of its text."""
    tokens_per_chunk: tuple[int, ...] = ()
    """How many tokens each chunk of the stream carried: ITL per chunk is not ITL per token."""
    prefill_server: str | None = None
    """URL of the prefill server that the proxy chose, where the proxy says so."""
    decode_server: str | None = None
    prompt_end: tuple[str, ...] = ()
    """The prompt's last tokens (END_SPELLED at most) as the server spells them, told with ``prompt_logprobs``. The
    prompt of a teacher forcing ends with the answer that is forced."""
    ending: Ending = Ending.UNRECORDED
    """Set from outcome and status where it is not given."""

    def __post_init__(self) -> None:
        if self.ending is Ending.UNRECORDED:
            object.__setattr__(self, "ending", _ending(self.outcome, self.status))


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a Prometheus exposition: a family's sample name, its labels and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scraped:
    """One server's counters, as exposed, restricted to the engine's own families."""

    at: float
    server: str
    """The server's name: ``prefill-0``, ``decode-0``, …"""
    label: str
    """Which reading this is: ``before`` or ``after`` the phase named next."""
    scenario: str
    phase: str
    samples: tuple[Sample, ...]
    settled: bool = True
    """Whether the deployment was seen at rest; if not, the reading bounds nothing."""
    unsettled_because: str = ""
    declared: tuple[str, ...] = ()
    """Sample names that the exposition declares without having a sample yet: no event so far, so they stand at 0."""


@dataclass(frozen=True, slots=True)
class ScrapeFailed:
    """A reading that could not be taken; whatever needed it is ``unknown``."""

    at: float
    server: str
    label: str
    scenario: str
    phase: str
    cause: str


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How well the harness itself kept up; a slow client must not be blamed on the servers."""

    at: float
    worst_loop_lag: float
    """Longest delay of the event loop, seconds."""
    worst_send_delay: float
    """Largest ``Sent.at - Sent.intended_at`` that the concurrency limit does not explain, seconds."""
    mean_loop_lag: float
    """Mean delay of the event loop, seconds: how much too late a token's arrival is recorded, on average."""
    cpu_share: float
    """CPU seconds of the harness's own process per second; near 1 it, not the servers, sets the pace."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a reader of the run should know and no checker needs: progress, a warning."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class NoisyOutput:
    """One control output of an earlier run beside its teacher forcing; nats, one number per token."""

    regret: tuple[float, ...]
    drift: tuple[float, ...]
    margin_error: tuple[float, ...]
    margin: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NoiseMeasured:
    """What an earlier run's control arm showed, on the same deployment."""

    at: float
    origin: str
    """Where from, how much and how old, in words."""
    outputs: tuple[NoisyOutput, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the servers choose and end answers, beyond what each request says."""

    at: float
    end_token_ids: tuple[int, ...]
    """What the model's files call special: tokens that end an answer before its length. Empty where no files were
    found."""
    shifted_by: tuple[str, ...] = ()
    """Fields of every body by which a server chooses other tokens than those that it finds best: a penalty, a bias."""
    ends_complete: bool = True
    """Whether no other token ends an answer; else the servers may know more than the files that were read."""


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
    | Noted
    | NoiseMeasured
    | Decoding
    | RunEnded
)

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Operation:
    """A request with its end; ``INFO`` when the history has none."""

    sent: Sent
    ended: Ended

    @property
    def request(self) -> Request:
        """What was sent."""
        return self.sent.request

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return self.ended.outcome

    @property
    def prompt_token_ids(self) -> tuple[int, ...] | None:
        """The prompt as sent, if it was token ids, else as the server told; None when it did not."""
        prompt = self.request.prompt
        ids = () if isinstance(prompt, str) else tuple(token for token in prompt if isinstance(token, int))
        return ids or self.ended.prompt_token_ids


@dataclass(frozen=True, slots=True)
class History:
    """A run's entries, with the questions that checkers ask of them."""

    entries: tuple[Entry, ...]
    _operations: tuple[Operation, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_operations", tuple(_pair(self.entries)))

    def operations(
        self,
        *,
        scenario: str | None = None,
        phase: str | None = None,
        route: Route | None = None,
    ) -> tuple[Operation, ...]:
        """Operations in the order in which they were sent, filtered by what is given."""
        return tuple(
            operation
            for operation in self._operations
            if (scenario is None or operation.sent.scenario == scenario)
            and (phase is None or operation.sent.phase == phase)
            and (route is None or operation.request.route == route)
        )

    def scrapes(self, *, scenario: str, phase: str, label: str) -> dict[str, Scraped]:
        """Readings by server name; a server whose reading failed is absent."""
        return {
            entry.server: entry
            for entry in self.entries
            if isinstance(entry, Scraped) and (entry.scenario, entry.phase, entry.label) == (scenario, phase, label)
        }

    def of(self, kind: type[E]) -> Iterator[E]:
        """Entries of one kind, in order."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    @property
    def ended_early(self) -> bool:
        """Whether the run did not come to its own end."""
        return not any(not entry.interrupted for entry in self.of(RunEnded))

    @property
    def died(self) -> tuple[DeadProcess, ...]:
        """Processes that the harness had started and that ended by themselves; usually none."""
        return tuple(one for entry in self.of(RunEnded) for one in entry.died)


def _pair(entries: Iterable[Entry]) -> Iterator[Operation]:
    entries = tuple(entries)
    ends = {entry.request_id: entry for entry in entries if isinstance(entry, Ended)}
    for entry in entries:
        if isinstance(entry, Sent):
            never = Ended(
                entry.at,
                entry.request.request_id,
                Outcome.INFO,
                "the history holds no end of it",
                ending=Ending.NO_END,
            )
            yield Operation(entry, ends.get(entry.request.request_id, never))


def _ending(outcome: Outcome, status: int | None) -> Ending:
    if outcome is Outcome.OK:
        return Ending.COMPLETED
    if status is None:
        return Ending.NO_END
    return Ending.UNFINISHED if status == 200 else Ending.REFUSED
