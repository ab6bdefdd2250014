"""How an operation ended: OK, FAIL or INFO, by whom, and why. Pure.

    what happened                                                        outcome  ending
    no connection                                                        FAIL     not_connected
    a request that cannot be made                                        FAIL     not_sent
    4xx of the server that was asked                                     FAIL     refused
    4xx through a proxy, which says that it asked a prefill server only  FAIL     refused
    4xx through a proxy, a decode server asked or the proxy silent       INFO     refused
    408: the server gave up waiting, for whatever it had                 INFO     refused
    any other status but 200                                             INFO     refused
    200, but a prefix cache that was to be emptied was not               INFO     refused
    200, but an error as an event or as the body                         INFO     error_inside
    200, but an unreadable chunk                                         INFO     unfinished
    the client's time was over, and the end marker had not come          INFO     timed_out
    the connection was cut, and the end marker had not come              INFO     cut
    200, in a content coding that nobody asked for, and that is not read INFO     unreadable
    200, but no end marker, a choice missing, no or a bad
    finish_reason, nothing said, or other counts than the server's own   INFO     unfinished
    200, whole                                                           OK       completed

The first row that fits counts. An answer without end marker, at whose end the connection was not cut, is whole all the
same where its end is shown otherwise: each choice has its finish_reason, and as many tokens came as the usage says,
which is told last. Some gateways pass on all but the marker. A whole answer without any token ids is whole: something
on the way may not know ``return_token_ids``. Its output cannot be verified, and who verifies it says so.

FAIL promises that no counter moved. A decode server that refuses (a context too short for max_tokens, say, where
prefill was asked for one token) does so after prefill has worked: hence the fourth row.
"""

from dataclasses import dataclass

from harness.history import Choice, Ended, Ending, Outcome
from harness.load.answer import Answer
from harness.load.quoting import quoted
from harness.redact import redact_text, redact_url
from harness.scenario import Purpose, Request, Route

_BAD_FINISH = frozenset({"abort", "error"})
"""vLLM's finish reasons are stop, length, abort, error, repetition; chat adds tool_calls."""
_REQUEST_TIMEOUT = 408
_COMPLETED = Outcome.OK, Ending.COMPLETED, ""

Judged = tuple[Outcome, Ending, str]
"""Outcome, ending and cause."""


@dataclass(slots=True)
class Reply:
    """What the transport saw."""

    status: int | None = None
    prefill_server: str | None = None
    decode_server: str | None = None
    body: str = ""
    """Of an answer that is not a 200."""
    broken: Ending | None = None
    """What cut the exchange short: TIMED_OUT, CUT, UNREADABLE, NOT_CONNECTED or NOT_SENT; None: nothing did."""
    trouble: str = ""
    """The same in words."""


def conclude(request: Request, reply: Reply, answer: Answer, at: float) -> Ended:
    """The operation's end, as the history keeps it; the answer's own end, if it has one, counts before ``at``."""
    prompt_logprobs = answer.prompt_logprobs  # first: reading them may find a fault
    outcome, ending, cause = judge(request, reply, answer)
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
        tokens_per_chunk=tuple(answer.tokens_per_chunk) or (1,) * len(answer.token_times),
        prefill_server=reply.prefill_server and redact_url(reply.prefill_server),
        decode_server=reply.decode_server and redact_url(reply.decode_server),
        prompt_end=answer.prompt_end,
        ending=ending,
    )


def judge(request: Request, reply: Reply, answer: Answer) -> Judged:
    """Outcome, ending and cause, by the table above."""
    if reply.broken in (Ending.NOT_CONNECTED, Ending.NOT_SENT):
        return Outcome.FAIL, reply.broken, reply.trouble
    if reply.status is None:
        return Outcome.INFO, reply.broken or Ending.CUT, reply.trouble or "no answer"
    if reply.status != 200:
        return _judge_refusal(request, reply)
    return _judge_reset(reply) if request.purpose is Purpose.RESET else _judge_answer(request, reply, answer)


def _judge_answer(request: Request, reply: Reply, answer: Answer) -> Judged:
    """Of a 200 that is to be an answer."""
    if answer.fault:
        return Outcome.INFO, Ending.ERROR_INSIDE if answer.said_error else Ending.UNFINISHED, answer.fault
    if answer.done_at is None and reply.broken:
        return Outcome.INFO, reply.broken, reply.trouble
    cause = _shortcoming(request, answer)
    return (Outcome.INFO, Ending.UNFINISHED, cause) if cause else _COMPLETED


def _judge_reset(reply: Reply) -> Judged:
    """It is refused, with a 200, while a request holds blocks; older servers say nothing."""
    if reply.broken:
        return Outcome.INFO, reply.broken, f"not reset: {reply.trouble}"
    if "false" in reply.body:
        return Outcome.INFO, Ending.REFUSED, f"not reset: {quoted(reply.body)}"
    return _COMPLETED


def _judge_refusal(request: Request, reply: Reply) -> Judged:
    cause = f"HTTP {reply.status}: {quoted(reply.body)}"
    return (Outcome.FAIL if _certain(request, reply) else Outcome.INFO), Ending.REFUSED, cause


def _certain(request: Request, reply: Reply) -> bool:
    if reply.status is None or not 400 <= reply.status < 500 or reply.status == _REQUEST_TIMEOUT:
        return False
    return request.route is not Route.PROXY or bool(reply.prefill_server and not reply.decode_server)


def _shortcoming(request: Request, answer: Answer) -> str:
    """Why an answer with status 200 that can be read is not OK; empty if it is."""
    choices = answer.choices
    told = any(choice.token_ids for choice in choices)
    lacking = _lacking(request, answer, choices, told=told)
    if answer.done_at is None and (lacking or not told or answer.usage is None):
        return f"the stream ended without its end marker{_beside(answer)}"
    return lacking


def _lacking(request: Request, answer: Answer, choices: tuple[Choice, ...], *, told: bool) -> str:
    """What an answer lacks, or has too much; its end marker is not looked at."""
    wanted = request.sampling.n or 1
    if len(choices) != wanted:
        return f"{len(choices)} of {wanted} choices came{_beside(answer)}"
    if answer.indices != tuple(range(wanted)):
        return f"its choices are numbered {', '.join(map(str, answer.indices))}, and not from 0 on"
    unfinished = next(filter(None, (_unfinished(choice, told=told) for choice in choices)), "")
    return unfinished or (_miscounted(answer, choices) if told else _empty(answer, choices))


def _beside(answer: Answer) -> str:
    return f", and held what is no part of one: {answer.aside}" if answer.aside else ""


def _unfinished(choice: Choice, *, told: bool) -> str:
    """``told``: whether any choice of the answer came with token ids."""
    if choice.finish_reason is None:
        return "no finish_reason"
    if choice.finish_reason in _BAD_FINISH:
        return f"finish_reason {choice.finish_reason}"
    return "" if choice.token_ids or not told else "no token ids, where another choice has some"


def _empty(answer: Answer, choices: tuple[Choice, ...]) -> str:
    """An answer without token ids must show some other sign that something was generated."""
    generated = answer.usage is not None and answer.usage.completion_tokens > 0
    return "" if generated or any(choice.text for choice in choices) else "no token ids, no text and no usage"


def _miscounted(answer: Answer, choices: tuple[Choice, ...]) -> str:
    """A chunk lost on the way leaves no other trace."""
    arrived = sum(len(choice.token_ids) for choice in choices)
    if answer.usage is None or answer.usage.completion_tokens == arrived:
        return ""
    return f"{arrived} tokens came, and usage says {answer.usage.completion_tokens}"
