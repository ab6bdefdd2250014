"""How an operation ended: its outcome, and what the servers answered."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from harness.deferred import Deferred, source_of, tokens_put_away

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
        try:
            # The field itself, so that it is not read from the journal if it lies there.
            choices: tuple[Choice, ...] = object.__getattribute__(self, "choices")
        except AttributeError:
            return tokens_put_away(self) or 0
        return len(choices[0].token_ids) if len(choices) == 1 else sum(len(one.token_ids) for one in choices)

    @property
    def first_token_at(self) -> float | None:
        """When the first token arrived; None if nothing was streamed, or if only the journal knows it by now."""
        try:
            # The field itself, so that it is not read from the journal if it lies there.
            times: tuple[float, ...] = object.__getattribute__(self, "token_times")
        except AttributeError:
            return getattr(source_of(self), "first_at", None)
        return times[0] if times else None


def _ending(outcome: Outcome, status: int | None) -> Ending:
    if outcome is Outcome.OK:
        return Ending.COMPLETED
    if status is None:
        return Ending.NO_END
    return Ending.UNFINISHED if status == 200 else Ending.REFUSED
