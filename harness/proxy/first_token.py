"""What P says about its one token: the log-probabilities that the client gets beside D's answer. No I/O.

P computes the first output token from its own KV, and D computes it again from the KV that was transferred. If the
client asks for ``logprobs``, both servers report log-probabilities for this token, so P's are a reference for D's. P's
answer is discarded otherwise, so this reference costs the servers nothing. P answers before D is asked: a response
header can carry it for a stream too.

The header holds P's ``logprobs`` object as JSON in ASCII, reduced to the row of the first token. Numbers keep all their
digits, since a reader may compare them to the last bit. Fields that repeat the token in another form are left out.

    completions  {"tokens":["token_id:5"],"token_logprobs":[-0.5],"top_logprobs":[{"token_id:5":-0.5}]}
    chat         {"content":[{"token":"token_id:5","logprob":-0.5,"top_logprobs":[{"token":"token_id:5",…}]}]}

Tokens are written as ids if the client sets ``return_tokens_as_token_ids``, as in D's answer. There is no header if the
client asked for no log-probabilities, if P's answer has them in no known form, or if they are too long. A request never
fails because of them.
"""

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 4096
"""Characters. vLLM's 20 log-probabilities take about 1,000. Some clients refuse a header above 8,190 bytes, and some
gateways refuse answers whose headers exceed 4 or 8 KiB together."""

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""The exceptions that another form than vLLM's may raise here."""

# NaN, which JSON does not have, raises ValueError.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def first_token(answer: Mapping[str, Any]) -> str | None:
    """The header's value, from P's answer; None if there is none. Never raises."""
    try:
        written = answer["choices"][0]["logprobs"]
        if written is None:
            return None
        value = _encode(_chat(written) if "content" in written else _completion(written))
    except _UNREADABLE:
        return None
    return value if len(value) <= LONGEST else None


def _completion(written: Mapping[str, Any]) -> dict[str, Any]:
    """The first row of parallel lists. Alternatives may be absent, in which case the list is null."""
    tops = written.get("top_logprobs")
    return {
        "tokens": [_text(written["tokens"][0])],
        "token_logprobs": [_number(written["token_logprobs"][0])],
        "top_logprobs": [_alternatives(tops[0])] if tops else None,
    }


def _alternatives(top: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if top is None else {token: _number(logprob) for token, logprob in top.items()}


def _chat(written: Mapping[str, Any]) -> dict[str, Any]:
    """The first of a list of objects, each of which may have a list of alternatives."""
    first = written["content"][0]
    kept = _chat_token(first)
    tops = first.get("top_logprobs")
    return {"content": [kept if tops is None else {**kept, "top_logprobs": [_chat_token(top) for top in tops]}]}


def _chat_token(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A token with its log-probability; vLLM leaves the latter out for NaN."""
    named = {"token": _text(entry["token"])}
    return {**named, "logprob": _number(entry["logprob"])} if "logprob" in entry else named


def _text(token: object) -> str:
    if not isinstance(token, str):
        raise TypeError(f"a token is not a text but {type(token).__name__}")
    return token


def _number(logprob: object) -> float | None:
    """The number; null stands for NaN."""
    if logprob is not None and (isinstance(logprob, bool) or not isinstance(logprob, int | float)):
        raise TypeError(f"a log-probability is not a number but {type(logprob).__name__}")
    return logprob
