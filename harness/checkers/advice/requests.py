"""Advice on requests that did not complete, streams that were held back, and a client that did not keep up."""

from collections import Counter

from harness.checkers.advice.context import ENDED_EARLY, Context, plural
from harness.checkers.completion import as_expected
from harness.checkers.streaming import FEWEST_TOKENS
from harness.history import Ending, Operation, Outcome
from harness.verdict import Advice

_LOGS = "read the servers' logs of that time"
_RUN_AGAIN = "run again; `python -m harness check` judges the part of the run that was stored"
_BY_ENDING = {
    Ending.ERROR_INSIDE: ("a server failed after it had begun to answer", f"{_LOGS}; the finding quotes its message"),
    Ending.UNFINISHED: (
        "a server, or something between it and the client, ends or changes answers before they are complete",
        "send a request to the decode server directly (curl), then through the proxy, and compare",
    ),
    Ending.UNREADABLE: (
        "a gateway compresses answers, although requests ask for none (Accept-Encoding: identity)",
        "turn off compression in the gateway, or use the harness's own proxy (leave out --base-url)",
    ),
    Ending.CUT: (
        "a server died or was restarted, or a proxy closed a connection that was idle for too long",
        f"{_LOGS}; raise the proxy's idle and read timeouts",
    ),
    Ending.TIMED_OUT: (
        "a request hangs (a transfer's notification may have been lost), or the servers are too slow for the load",
        "look at the decode server's waiting requests; raise --request-timeout-sec or lower --concurrency",
    ),
    Ending.NOT_CONNECTED: (
        "nothing listens at the address",
        "make sure that the server is up and reachable from this machine",
    ),
    Ending.NOT_SENT: (
        "an earlier turn of the conversation has no answer, or the request cannot be made",
        "see the first request that failed",
    ),
    Ending.CLIENT_CRASHED: (
        "the harness's own client failed, which says nothing about the deployment",
        "report it with the run's directory",
    ),
    Ending.INTERRUPTED: ("the run was interrupted", _RUN_AGAIN),
    Ending.NO_END: ("the harness was killed", _RUN_AGAIN),
}
_BY_STATUS = {
    **dict.fromkeys(
        (401, 402, 403, 407, 511),
        ("the credentials are missing or wrong", "give them with --header, as in --header 'Authorization=Bearer ...'"),
    ),
    **dict.fromkeys(range(300, 400), ("the URL answers with a redirect", "give the URL that it redirects to")),
    400: (
        "the servers refuse the requests: their context is too short, or a field of --extra-body is wrong",
        "read the server's message in the finding",
    ),
    404: (
        "the server serves the model under another name, or has no such endpoint",
        "compare --served-model-name with GET /v1/models, and check the URL",
    ),
    408: ("a request did not arrive in time", "check the client's machine, the network, and the gateway's limits"),
    429: ("a gateway limits the rate of requests", "raise its limit, or lower --concurrency"),
}
_ANY_STATUS = ("a server or the proxy failed", f"{_LOGS}; the finding quotes the answer")


def of_completion(context: Context) -> Advice | None:
    """Advice on the most common way in which requests failed."""
    unexpected = [one for one in context.load() if one.outcome is not Outcome.OK and not as_expected(one)]
    if not unexpected:
        served = [one for one in context.load() if one.request.expect_status is not None and one.outcome is Outcome.OK]
        if served:
            return Advice("a request that must be refused was served", "check the proxy's and the servers' validation")
        if context.history.ended_early:
            return Advice(ENDED_EARLY.cause, _RUN_AGAIN)
        return Advice("requests that verify other requests failed", "see the finding; run again")
    ending, status = Counter((one.ended.ending, _status(one)) for one in unexpected).most_common(1)[0][0]
    alike = [one for one in unexpected if (one.ended.ending, _status(one)) == (ending, status)]
    where = context.common_server(alike)
    refused = _BY_STATUS.get(status or 0, _ANY_STATUS)
    cause, remedy = refused if ending is Ending.REFUSED else _BY_ENDING.get(ending, ("", ""))
    return Advice(f"{cause} ({plural(len(alike), 'request')}{where})", remedy) if cause else None


def _status(operation: Operation) -> int | None:
    return operation.ended.status if operation.ended.ending is Ending.REFUSED else None


def of_streaming(context: Context) -> Advice:
    """Advice on answers that were held back, or on why the check is unknown."""
    completed = [one for one in context.load() if one.outcome is Outcome.OK and one.request.stream]
    if not completed and not context.invalid:
        return Advice("no streamed answer completed", "see completion")
    if context.invalid or any(len(one.ended.token_times) >= FEWEST_TOKENS for one in completed):
        return Advice(
            "a proxy or gateway buffers answers before it forwards them",
            "turn off response buffering there (nginx: proxy_buffering off), and compare with the decode server itself",
        )
    if not any(one.outcome is Outcome.OK for one in context.load()):
        return ENDED_EARLY if context.history.ended_early else Advice("no request completed", "see completion")
    return Advice(
        f"no answer of {FEWEST_TOKENS} tokens or more was streamed",
        "ask for longer streamed answers if you want streaming to be checked",
    )


CLIENT_HEALTH = Advice(
    "this machine was too busy for the load, so that measured latencies include delays of the client itself",
    "lower --concurrency, or run the harness on a machine with free cores",
)
