"""Classifies how an operation ended: outcome (OK, FAIL or INFO), ending and cause. Pure.

    what happened                                                        outcome  ending
    no connection could be made                                          FAIL     not_connected
    the request cannot be written or has no server                       FAIL     not_sent
    4xx from the server, which was asked directly                        FAIL     refused
    4xx from a proxy that reports to have asked a prefill server only    FAIL     refused
    4xx from a proxy that asked a decode server, or reports nothing      INFO     refused
    408: the server gave up waiting, and may have done some of the work  INFO     refused
    any other status but 200                                             INFO     refused
    200, but the prefix cache was not emptied as requested               INFO     refused
    the client left before the end marker, as planned                    INFO     left
    200, but an error as an event or as the body                         INFO     error_inside
    200, but an unreadable chunk                                         INFO     unfinished
    the client's timeout expired before the end marker                   INFO     timed_out
    the connection was cut before the end marker                         INFO     cut
    200, in a content coding that cannot be decoded                      INFO     unreadable
    200, but no end marker, a missing choice, no or a bad finish_reason,
    no output, or another number of tokens than the server counted       INFO     unfinished
    200, whole                                                           OK       completed

The first row that fits decides. Some gateways drop the end marker. Without it, an answer whose connection was not cut
is still whole if every choice has its finish_reason and as many tokens arrived as the usage, which comes last, counts.
An answer without any token ids is whole too: a gateway may not know ``return_token_ids``. Its output cannot be
verified, as the check of outputs reports.

FAIL promises that no counter moved. Hence the fifth row: a decode server may refuse after prefill has worked, for
example because its context is too short for max_tokens, while prefill was asked for one token.
"""

from dataclasses import dataclass

from harness.history import Choice, Ended, Ending, Outcome
from harness.load.answers import logprobs
from harness.load.answers.answer import Answer
from harness.load.answers.quoting import quoted
from harness.load.answers.timing_header import shares_of
from harness.redact import redact_text, redact_url
from harness.scenario import Purpose, Request, Route

_BAD_FINISH = frozenset({"abort", "error"})
"""vLLM's finish reasons are stop, length, abort, error, repetition; chat adds tool_calls."""
_REQUEST_TIMEOUT = 408
_COMPLETED = Outcome.OK, Ending.COMPLETED, ""

Choices = tuple[Choice, ...]
Classified = tuple[Outcome, Ending, str]
"""Outcome, ending and cause."""


@dataclass(slots=True)
class Reply:
    """The HTTP side of an operation."""

    status: int | None = None
    prefill_server: str | None = None
    decode_server: str | None = None
    prefill_first: str | None = None
    """The response header that holds the prefill server's log-probabilities of its one token."""
    timing: str | None = None
    """The response header that holds the proxy's and the prefill server's shares of the time."""
    body: str = ""
    """The body of an answer that is not a 200, or of a reset."""
    broken: Ending | None = None
    """Why the exchange ended early: LEFT, TIMED_OUT, CUT, UNREADABLE, NOT_CONNECTED or NOT_SENT; else None."""
    trouble: str = ""
    """A description of ``broken``."""


def conclude(request: Request, reply: Reply, answer: Answer, at: float) -> Ended:
    """The operation's end for the history; ``at`` is its time if the answer has no end of its own."""
    # Read before classifying, since reading may find a fault.
    prompt_logprobs, choices = answer.prompt_logprobs, answer.choices
    outcome, ending, cause = _classify(request, reply, answer, choices)
    proxy_seconds, prefill_seconds = shares_of(reply.timing)
    return Ended(
        at=at if answer.done_at is None else answer.done_at,
        request_id=request.request_id,
        outcome=outcome,
        cause=redact_text(cause) if cause else "",
        status=reply.status,
        choices=choices,
        usage=answer.usage,
        prompt_token_ids=answer.prompt_token_ids,
        prompt_logprobs=prompt_logprobs,
        token_times=tuple(answer.token_times),
        tokens_per_chunk=tuple(answer.tokens_per_chunk) or (1,) * len(answer.token_times),
        prefill_server=reply.prefill_server and redact_url(reply.prefill_server),
        decode_server=reply.decode_server and redact_url(reply.decode_server),
        prompt_end=answer.prompt_end,
        ending=ending,
        first_logprobs=answer.first_logprobs,
        prefill_first=logprobs.of_header(reply.prefill_first),
        proxy_seconds=proxy_seconds,
        prefill_seconds=prefill_seconds,
        reference=answer.reference if request.holds else None,
    )


def _classify(request: Request, reply: Reply, answer: Answer, choices: Choices) -> Classified:
    """Outcome, ending and cause, by the table above."""
    if reply.broken in (Ending.NOT_CONNECTED, Ending.NOT_SENT):
        return Outcome.FAIL, reply.broken, reply.trouble
    if reply.status is None:
        return Outcome.INFO, reply.broken or Ending.CUT, reply.trouble or "no answer"
    if reply.status != 200:
        cause = f"HTTP {reply.status}: {quoted(reply.body)}"
        return (Outcome.FAIL if _certainly_refused(request, reply) else Outcome.INFO), Ending.REFUSED, cause
    if request.purpose is Purpose.RESET:
        return _classify_reset(reply)
    return _classify_answer(request, reply, answer, choices)


def _classify_answer(request: Request, reply: Reply, answer: Answer, choices: Choices) -> Classified:
    if answer.fault:
        return Outcome.INFO, Ending.ERROR_INSIDE if answer.error_reported else Ending.UNFINISHED, answer.fault
    if answer.done_at is None and reply.broken:
        return Outcome.INFO, reply.broken, reply.trouble
    cause = _shortcoming(request, answer, choices)
    return (Outcome.INFO, Ending.UNFINISHED, cause) if cause else _COMPLETED


def _classify_reset(reply: Reply) -> Classified:
    """A reset is refused, with a 200, while a request holds blocks; older vLLM versions do not report the refusal."""
    if reply.broken:
        return Outcome.INFO, reply.broken, f"not reset: {reply.trouble}"
    if "false" in reply.body:
        return Outcome.INFO, Ending.REFUSED, f"not reset: {quoted(reply.body)}"
    return _COMPLETED


def _certainly_refused(request: Request, reply: Reply) -> bool:
    """Whether certainly no server worked on the request."""
    if reply.status is None or not 400 <= reply.status < 500 or reply.status == _REQUEST_TIMEOUT:
        return False
    return request.route is not Route.PROXY or bool(reply.prefill_server and not reply.decode_server)


def _shortcoming(request: Request, answer: Answer, choices: Choices) -> str:
    """Why a readable answer with status 200 is not OK; empty if it is."""
    with_ids = any(choice.token_ids for choice in choices)
    incomplete = _incomplete(request, answer, choices, with_ids=with_ids)
    if answer.done_at is None and (incomplete or not with_ids or answer.usage is None):
        return f"the stream ended without its end marker{_stray(answer)}"
    return incomplete


def _incomplete(request: Request, answer: Answer, choices: Choices, *, with_ids: bool) -> str:
    """The missing or surplus part of an answer, the end marker aside; ``with_ids``: whether it has any token ids."""
    wanted = request.sampling.n or 1
    if len(choices) != wanted:
        return f"{len(choices)} of {wanted} choices arrived{_stray(answer)}"
    if answer.indices != tuple(range(wanted)):
        return f"the choices have the indices {', '.join(map(str, answer.indices))} instead of 0 to {wanted - 1}"
    unfinished = next(filter(None, (_unfinished(choice, with_ids=with_ids) for choice in choices)), "")
    return unfinished or (_miscounted(answer, choices) if with_ids else _empty(answer, choices))


def _stray(answer: Answer) -> str:
    return f"; instead it holds: {answer.stray_text}" if answer.stray_text else ""


def _unfinished(choice: Choice, *, with_ids: bool) -> str:
    if choice.finish_reason is None:
        return "no finish_reason"
    if choice.finish_reason in _BAD_FINISH:
        return f"finish_reason {choice.finish_reason}"
    return "" if choice.token_ids or not with_ids else "one choice has no token ids, although another has some"


def _empty(answer: Answer, choices: Choices) -> str:
    """Why an answer without token ids is not whole: there is no other evidence of generated tokens."""
    generated = answer.usage is not None and answer.usage.completion_tokens > 0
    return "" if generated or any(choice.text for choice in choices) else "no token ids, no text and no usage"


def _miscounted(answer: Answer, choices: Choices) -> str:
    """The difference from the server's count of tokens, which is the only trace of a lost chunk."""
    arrived = sum(len(choice.token_ids) for choice in choices)
    if answer.usage is None or answer.usage.completion_tokens == arrived:
        return ""
    return f"{arrived} tokens arrived, but the server's usage counts {answer.usage.completion_tokens}"
