"""The requests that the proxy sends to P and to D (handover.py checks P's answer in between). No I/O.

Rule 1. P computes the KV of exactly the prompt that D will decode, and stops after one token. A second token could
open another block on P and shift the KV against D's.

Rule 2. P gets every field of the client's request except those that would break rule 1 or cost P work whose result is
discarded. Fields that only shape the output (``logprobs``, ``stop``, ``structured_outputs``, ...) stay, although P's
one token is discarded: P then refuses a request that D would refuse, before it holds any block. Some of them shape
the prompt as well: ``response_format``, ``tools`` and ``tool_choice`` reach the chat template, ``suffix`` makes a
fill-in-the-middle prompt.

Rule 3. D gets the client's request byte for byte, and P's ``kv_transfer_params``.

Rule 4. A request that would silently bypass the transfer, or make P prefill another prompt than D decodes, is refused
with 400.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

PARAMS = "kv_transfer_params"
_SHOWN = 40
"""Characters of a client's value that a message shows."""


class Endpoint(StrEnum):
    """The two endpoints that generate tokens, by path."""

    COMPLETIONS = "/v1/completions"
    CHAT = "/v1/chat/completions"


class RejectedRequest(Exception):  # noqa: N818 - reads as what happened
    """The client's request cannot be served; ``param`` names the field, as in OpenAI's errors."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


REMOTE_KEYS = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")
"""Parameters that NIXL's decode side needs besides ``remote_block_ids``; sizes (``tp_size``, ...) have defaults."""

_TO_PREFILL: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_block_ids": None,
    **dict.fromkeys(REMOTE_KEYS),
}

_DROPPED_FOR_PREFILL = frozenset(
    {
        # vLLM refuses stream_options without stream, and min_tokens above max_tokens.
        "stream_options",
        "min_tokens",
        # Like n: every further sequence holds blocks on P that no D will fetch.
        "best_of",
        # Would skip P's cache reads and compute logits of the whole prompt; D computes its own. With logprobs, echo
        # means prompt_logprobs.
        "prompt_logprobs",
        "echo",
        # P would send the whole prompt back.
        "return_token_ids",
        "return_prompt_text",
    }
)


def parse_request(raw: bytes, endpoint: Endpoint) -> Json:
    """The client's body as JSON. Raises RejectedRequest if the body is not a JSON object, or rule 4 refuses it."""
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
            f"The proxy sets {PARAMS} itself: with the client's own value, D would not decode what P prefilled. "
            "To test how a server handles this field, send the request directly to that server.",
            PARAMS,
        )
    # vLLM makes a beam of one-token requests without kv_transfer_params: D would compute everything itself, and P
    # would hold its blocks until their lease ends.
    if body.get("use_beam_search"):
        raise RejectedRequest(
            "Beam search does not read transferred KV. Send this request directly to a server.", "use_beam_search"
        )


def _refuse_another_prompt(body: Json, endpoint: Endpoint) -> None:
    # A negative value means "as many as fit with max_tokens", and P's max_tokens is 1: P would keep more of the prompt
    # than D, and every block would hold other tokens than D assumes.
    truncate = body.get("truncate_prompt_tokens")
    # vLLM reads "-1" and -1.0 as -1.
    if isinstance(truncate, int | float | str) and str(truncate).lstrip().startswith("-"):
        raise RejectedRequest(
            f"truncate_prompt_tokens={str(truncate)[:_SHOWN]} depends on max_tokens, which differs between the prefill "
            "and the decode server. Give the number of tokens to keep.",
            "truncate_prompt_tokens",
        )
    if endpoint is Endpoint.COMPLETIONS and (count := _prompt_count(body)) > 1:
        raise RejectedRequest(
            f"A request may hold one prompt, and this one holds {count}. Send each prompt as its own request.", "prompt"
        )


def _prompt_count(body: Json) -> int:
    return sum(_sequences(body.get(field)) for field in ("prompt", "prompt_embeds"))


def _sequences(prompt: object) -> int:
    """The number of prompts: a list of token ids is one prompt, any other list is one prompt per item."""
    if not isinstance(prompt, list):
        return int(prompt is not None)
    return 1 if prompt and isinstance(prompt[0], int) else len(prompt)


_SET_FOR_PREFILL: Json = {"stream": False, "max_tokens": 1, "n": 1}


def is_dropped_for_prefill(field: str) -> bool:
    """Whether P does not get the client's value of this field."""
    return field in _DROPPED_FOR_PREFILL or field in _SET_FOR_PREFILL or field == "max_completion_tokens"


def prefill_request(body: Mapping[str, Any], endpoint: str) -> Json:
    """The request to P: one token, no stream, one sequence, and blocks that P keeps for D to fetch."""
    prefill = {key: value for key, value in body.items() if key not in _DROPPED_FOR_PREFILL}
    prefill |= {**_SET_FOR_PREFILL, PARAMS: dict(_TO_PREFILL)}
    return prefill | ({"max_completion_tokens": 1} if endpoint == Endpoint.CHAT else {})


def prefill_body(body: Json, endpoint: Endpoint) -> bytes:
    """The bytes of ``prefill_request``. Raises RejectedRequest if the body is nested too deeply to be written again."""
    return _dumps(prefill_request(body, endpoint))


def decode_body(raw: bytes, body: Mapping[str, Any], params: Json) -> bytes:
    """The request to D: the client's bytes with P's parameters as one more field.

    The field is spliced into the bytes: no number or string of the client changes its spelling, and a long prompt
    costs one copy.
    """
    # Here the client's value is null (parse_request refused any other). A second key of that name would be ambiguous.
    if PARAMS in body:
        return _dumps({**body, PARAMS: params})
    separator = b"," if body else b""
    return b"".join((raw.rstrip()[:-1], separator, b'"', PARAMS.encode(), b'":', _dumps(params), b"}"))


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _dumps(value: Mapping[str, Any]) -> bytes:
    try:
        return _encode(value).encode()
    except RecursionError:
        raise RejectedRequest("The request body is nested too deeply.") from None
