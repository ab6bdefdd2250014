"""A client's body and what is made of it for P and D, without reading what is only passed on. No I/O.

Most requests need nothing of contract.py's refusals: one prompt, and none of the fields that could bypass the transfer.
Their bodies are only split into fields; a prompt of thousands of token ids is checked as JSON and copied, never turned
into numbers. All other bodies, and all that this fast way cannot read (NaN, lone surrogates, mistakes), go through
contract.py as they are. What P and D receive means the same on both ways.
"""

import json
import re
from typing import Any

import msgspec

from harness.proxy.contract import (
    PARAMS,
    Endpoint,
    Json,
    decode_body,
    is_dropped_for_prefill,
    parse_request,
    prefill_body,
    prefill_request,
)

_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_join = msgspec.json.Encoder().encode
_JUDGED = frozenset({PARAMS, "use_beam_search", "truncate_prompt_tokens", "prompt_embeds"})
"""The fields by which contract.py refuses requests, besides the prompt."""
# A text, or a list of token ids.
_ONE_PROMPT = re.compile(rb'"|\[\s*-?[0-9]+\s*[,\]]')
_SHORT = 1000
"""Bytes. Python reads no integer of more than 4,300 digits, and contract.py refuses them."""


class Body:
    """One request's body. Raises RejectedRequest if contract.py refuses it."""

    __slots__ = ("_endpoint", "_fields", "_raw", "_read")

    def __init__(self, raw: bytes, endpoint: Endpoint) -> None:
        self._raw = raw
        self._endpoint = endpoint
        self._fields = _fields(raw, endpoint)
        self._read: Json = {} if self._fields is not None else parse_request(raw, endpoint)

    @property
    def request_id(self) -> Any:
        """The field ``request_id``; None if there is none."""
        if self._fields is None:
            return self._read.get("request_id")
        return json.loads(bytes(self._fields["request_id"])) if "request_id" in self._fields else None

    def for_prefill(self) -> bytes:
        """The request to P. Raises RejectedRequest if it is nested too deeply to be written again."""
        if self._fields is None:
            return prefill_body(self._read, self._endpoint)
        return _join(prefill_request(self._fields, self._endpoint))

    def for_decode(self, params: Json) -> bytes:
        """The request to D, with P's parameters."""
        return decode_body(self._raw, self._read if self._fields is None else self._fields, params)


def _fields(raw: bytes, endpoint: Endpoint) -> dict[str, msgspec.Raw] | None:
    """The fields' values as they are spelled; None if only contract.py can judge this body."""
    try:
        fields = _split(raw)
        # Values were not checked for UTF-8.
        if not raw.isascii():
            raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not _JUDGED.isdisjoint(fields) or (endpoint is Endpoint.COMPLETIONS and not _is_one_prompt(fields)):
        return None
    # P checks all other values before it holds any block.
    dropped = (value for key, value in fields.items() if is_dropped_for_prefill(key) or key == "request_id")
    return fields if all(len(memoryview(value)) < _SHORT for value in dropped) else None


def _is_one_prompt(fields: dict[str, msgspec.Raw]) -> bool:
    prompt = fields.get("prompt")
    return prompt is None or _ONE_PROMPT.match(memoryview(prompt)) is not None
