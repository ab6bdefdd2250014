"""How an operation ended: OK, FAIL or INFO, and why. Pure.

    what happened                                                        outcome
    no connection                                                        FAIL
    4xx of the server that was asked                                     FAIL
    4xx through a proxy, which says that it asked a prefill server only  FAIL
    4xx through a proxy, a decode server asked or the proxy silent       INFO
    408: the server gave up waiting, for whatever it had                 INFO
    any other status but 200                                             INFO
    200, but a prefix cache that was to be emptied was not               INFO
    timeout, cut connection                                              INFO, unless the end marker had come
    200, but an error event, an unreadable chunk, no end marker, a
    choice missing, no or a bad finish_reason, no token ids, or
    other counts than the server's own usage                             INFO
    200, whole                                                           OK

FAIL promises that no counter moved. A decode server that refuses (a context too short for max_tokens, say, where
prefill was asked for one token) does so after prefill has worked: hence the fourth row.
"""

from dataclasses import dataclass

from harness.history import Choice, Ended, Outcome
from harness.load.answer import Answer
from harness.redact import redact_text, redact_url
from harness.scenario import Request, Route

_BAD_FINISH = frozenset({"abort", "error"})
"""vLLM's finish reasons are stop, length, abort, error, repetition; chat adds tool_calls."""
_SHOWN = 300
_REQUEST_TIMEOUT = 408

Judged = tuple[Outcome, str]


@dataclass(slots=True)
class Reply:
    """What the transport saw."""

    status: int | None = None
    prefill_server: str | None = None
    decode_server: str | None = None
    body: str = ""
    """Of an answer that is not a 200."""
    trouble: str = ""
    """What cut the exchange short."""
    connected: bool = True
    """False only where certainly nothing was sent."""


def conclude(request: Request, reply: Reply, answer: Answer, at: float) -> Ended:
    """The operation's end, as the history keeps it; the answer's own end, if it has one, counts before ``at``."""
    prompt_logprobs = answer.prompt_logprobs  # first: reading them may find a fault
    outcome, cause = judge(request, reply, answer)
    return Ended(
        at=at if answer.done_at is None else answer.done_at,
        request_id=request.request_id,
        outcome=outcome,
        cause=redact_text(cause),
        status=reply.status,
        choices=answer.choices,
        usage=answer.usage,
        prompt_token_ids=answer.prompt_token_ids,
        prompt_logprobs=prompt_logprobs,
        token_times=tuple(answer.token_times),
        tokens_per_chunk=tuple(answer.tokens_per_chunk),
        prefill_server=reply.prefill_server and redact_url(reply.prefill_server),
        decode_server=reply.decode_server and redact_url(reply.decode_server),
    )


def judge(request: Request, reply: Reply, answer: Answer) -> Judged:
    """Outcome and cause, by the table above."""
    if not reply.connected:
        return Outcome.FAIL, reply.trouble
    if reply.status is None:
        return Outcome.INFO, reply.trouble or "no answer"
    if reply.status != 200:
        return _judge_refusal(request, reply)
    if request.resets:
        return _judge_reset(reply)
    cause = _shortcoming(request, reply, answer)
    return (Outcome.INFO, cause) if cause else (Outcome.OK, "")


def _judge_reset(reply: Reply) -> Judged:
    """It is refused, with a 200, while a request holds blocks; older servers say nothing."""
    refused = reply.trouble or ("false" in reply.body and reply.body)
    return (Outcome.INFO, f"not reset: {refused[:_SHOWN]}") if refused else (Outcome.OK, "")


def _judge_refusal(request: Request, reply: Reply) -> Judged:
    cause = f"status {reply.status}: {reply.body[:_SHOWN]}"
    return (Outcome.FAIL if _certain(request, reply) else Outcome.INFO), cause


def _certain(request: Request, reply: Reply) -> bool:
    if reply.status is None or not 400 <= reply.status < 500 or reply.status == _REQUEST_TIMEOUT:
        return False
    return request.route is not Route.PROXY or bool(reply.prefill_server and not reply.decode_server)


def _shortcoming(request: Request, reply: Reply, answer: Answer) -> str:
    """Why an answer with status 200 is not OK; empty if it is."""
    if answer.fault:
        return answer.fault
    if answer.done_at is None:
        return reply.trouble or "the stream ended without its end marker"
    choices = answer.choices
    wanted = request.sampling.n or 1
    if len(choices) != wanted:
        return f"{len(choices)} of {wanted} choices came"
    return next(filter(None, map(_unfinished, choices)), "") or _miscounted(answer, choices)


def _unfinished(choice: Choice) -> str:
    if choice.finish_reason is None:
        return "no finish_reason"
    if choice.finish_reason in _BAD_FINISH:
        return f"finish_reason {choice.finish_reason}"
    return "" if choice.token_ids else "no token ids"


def _miscounted(answer: Answer, choices: tuple[Choice, ...]) -> str:
    """A chunk lost on the way leaves no other trace."""
    arrived = sum(len(choice.token_ids) for choice in choices)
    if answer.usage is None or answer.usage.completion_tokens == arrived:
        return ""
    return f"{arrived} tokens came, and usage says {answer.usage.completion_tokens}"
