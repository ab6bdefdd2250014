"""What the proxy says to P and to D (handover.py: what P must have said in between). No I/O.

Rule 1. P computes the KV of exactly the prompt that D will decode, and stops after one token. A second token could
open another block on P and shift the KV against D's.

Rule 2. P is told everything the client said, except for what would break rule 1 or cost P work that nobody reads.
Fields that only shape the output (``logprobs``, ``stop``, ``structured_outputs``, ...) stay, although P's one token
is thrown away: so a request that D would refuse is refused by P, before it holds any block. Some of them shape the
prompt as well: ``response_format``, ``tools`` and ``tool_choice`` reach the chat template, ``suffix`` makes a
fill-in-the-middle prompt.

Rule 3. D is told exactly what the client said, byte for byte, and P's ``kv_transfer_params``.

Rule 4. What would pass by the transfer unseen, or prefill another prompt than is decoded, is refused with 400.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

PARAMS = "kv_transfer_params"
_SHOWN = 40
"""Characters of a client's value in a message."""


class Endpoint(StrEnum):
    """The two endpoints that generate, by their path."""

    COMPLETIONS = "/v1/completions"
    CHAT = "/v1/chat/completions"


class RejectedRequest(Exception):  # noqa: N818 - reads as what happened
    """The client is wrong (400); ``param`` names the field, as OpenAI's errors do."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


REMOTE_KEYS = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")
"""What NIXL's decode side needs beside ``remote_block_ids``; sizes (``tp_size``, ...) have defaults there."""

_TO_PREFILL: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_block_ids": None,
    **dict.fromkeys(REMOTE_KEYS),
}

_DROPPED_FOR_PREFILL = frozenset(
    {
        "stream_options",  # refused by vLLM where stream is false
        "min_tokens",  # refused where above max_tokens
        "best_of",  # as n: every further sequence holds blocks on P that no D will fetch
        "prompt_logprobs",  # would skip P's cache reads and compute logits of the whole prompt; D computes its own
        "echo",  # with logprobs it means prompt_logprobs
        "return_token_ids",  # P would send the whole prompt back; so would the next
        "return_prompt_text",
    }
)


def parse_request(raw: bytes, endpoint: Endpoint) -> Json:
    """The client's body as JSON, if it may be served.

    Raises:
        RejectedRequest: not a JSON object, or one that rule 4 refuses.

    """
    try:
        body = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise RejectedRequest(f"The request body is not JSON in UTF-8: {error}.") from None
    if not isinstance(body, dict):
        raise RejectedRequest("The request body must be a JSON object.")
    _refuse_what_bypasses_the_transfer(body)
    _refuse_another_prompt(body, endpoint)
    return body


def _refuse_what_bypasses_the_transfer(body: Json) -> None:
    if body.get(PARAMS) is not None:
        raise RejectedRequest(
            f"{PARAMS} are the proxy's to set: with the client's own, D would not decode what P prefilled. "
            "To test a server's handling of them, send the request to that server.",
            PARAMS,
        )
    # vLLM makes its own one-token requests for the beams, without kv_transfer_params: D would compute everything
    # itself, and P would hold its blocks until their lease ends.
    if body.get("use_beam_search"):
        raise RejectedRequest(
            "Beam search does not read transferred KV. Send this request to a server directly.", "use_beam_search"
        )


def _refuse_another_prompt(body: Json, endpoint: Endpoint) -> None:
    # A negative value means "what fits beside max_tokens", and P's max_tokens is not the client's: P would keep
    # more of the prompt than D, and every block would hold other tokens than D believes.
    truncate = body.get("truncate_prompt_tokens")
    # vLLM takes "-1" and -1.0 for -1.
    if isinstance(truncate, int | float | str) and str(truncate).lstrip().startswith("-"):
        raise RejectedRequest(
            f"truncate_prompt_tokens={str(truncate)[:_SHOWN]} depends on max_tokens, which differs between P and D. "
            "Name the number of tokens to keep.",
            "truncate_prompt_tokens",
        )
    if endpoint is Endpoint.COMPLETIONS and (count := _prompt_count(body)) > 1:
        raise RejectedRequest(
            f"One prompt a request: this one has {count}. Send each prompt as its own request.", "prompt"
        )


def _prompt_count(body: Json) -> int:
    return sum(_sequences(body.get(field)) for field in ("prompt", "prompt_embeds"))


def _sequences(prompt: object) -> int:
    """How many prompts: a list of token ids is one, a list of anything else is as many as it has items."""
    if not isinstance(prompt, list):
        return int(prompt is not None)
    return 1 if prompt and isinstance(prompt[0], int) else len(prompt)


def prefill_body(body: Json, endpoint: Endpoint) -> bytes:
    """The request to P: one token, no stream, one sequence, blocks kept for a decode elsewhere.

    Raises:
        RejectedRequest: so deeply nested that it could be read and cannot be written again.

    """
    prefill = {key: value for key, value in body.items() if key not in _DROPPED_FOR_PREFILL}
    prefill |= {"stream": False, "max_tokens": 1, "n": 1, PARAMS: _TO_PREFILL}
    if endpoint is Endpoint.CHAT:
        prefill["max_completion_tokens"] = 1
    return _dumps(prefill)


def decode_body(raw: bytes, body: Json, params: Json) -> bytes:
    """The request to D: the client's bytes with P's parameters as one more field.

    Spliced, not serialized again: no number or string of the client's can change its spelling, and a long prompt
    costs one copy.
    """
    if PARAMS in body:  # null, or it would have been refused; a second key of that name would be ambiguous
        return _dumps(body | {PARAMS: params})
    separator = b"," if body else b""
    return b"".join((raw.rstrip()[:-1], separator, b'"', PARAMS.encode(), b'":', _dumps(params), b"}"))


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _dumps(value: Mapping[str, Any]) -> bytes:
    try:
        return _encode(value).encode()
    except RecursionError:
        raise RejectedRequest("The request body is nested too deeply.") from None
