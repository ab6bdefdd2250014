"""Checks P's answer before D is asked. No I/O.

Incomplete parameters never reach D. On empty ``remote_block_ids`` vLLM's decode side fails an assertion, which ends
the whole engine. If a ``remote_*`` key is missing, it expects external tokens that are never fetched, and the request
hangs (NIXL's ``get_num_new_matched_tokens`` and ``update_state_after_alloc``).
"""

import json
from typing import NamedTuple

from harness.proxy.contract import PARAMS, REMOTE_KEYS, Json
from harness.proxy.errors import one_line
from harness.proxy.first_token import first_token

# NaN, which JSON does not have, raises ValueError.
_encode = json.JSONEncoder(allow_nan=False).encode
_PORTS = 1 << 16
_MOST_REASONS = 4


class IncompleteHandover(Exception):  # noqa: N818 - reads as what happened
    """P's answer cannot be handed to D (502)."""


class Handover(NamedTuple):
    """What P's answer contains for D and for the client."""

    params: Json
    """The complete ``kv_transfer_params``."""
    first_token: str | None
    """P's log-probabilities for its one token, as a header's value (first_token.py); None if P reported none."""


def take_handover(raw: bytes) -> Handover:
    """Read P's answer. Raises IncompleteHandover, which names the missing parts."""
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise IncompleteHandover(f"its answer is not JSON: {error}") from None
    params = answer.get(PARAMS) if isinstance(answer, dict) else None
    if not isinstance(params, dict) or not params:
        raise IncompleteHandover(f"its answer has no {PARAMS}{_why(answer)}")
    if missing := missing_from(params):
        raise IncompleteHandover(f"its {PARAMS} lack {', '.join(missing)}")
    _require_json(params)
    return Handover(params, first_token(answer))


def missing_from(params: Json) -> list[str]:
    """The fields D needs that are absent or have an impossible value; empty if the handover is complete."""
    missing = [key for key in REMOTE_KEYS if not _is_valid(key, params.get(key))]
    if not _has_blocks(params.get("remote_block_ids")):
        missing.append("remote_block_ids (none, or not block ids)")
    # Without this flag D ignores the other fields and computes the prompt itself: the output is right, but nothing is
    # transferred.
    if params.get("do_remote_prefill") is not True:
        missing.append("do_remote_prefill: true")
    return missing


def _is_valid(key: str, value: object) -> bool:
    if key == "remote_port":
        return type(value) is int and 0 < value < _PORTS
    return isinstance(value, str) and value != ""


def _require_json(params: Json) -> None:
    """Refuse NaN and values nested too deeply: they can be read, but not written as JSON."""
    try:
        _encode(params)
    except (ValueError, RecursionError) as error:
        raise IncompleteHandover(f"its {PARAMS} cannot be passed on: {error}") from None


def _has_blocks(ids: object) -> bool:
    """Whether there is at least one block id, in a flat list or in one list for each KV cache group."""
    if not isinstance(ids, list) or not ids:
        return False
    groups = ids if isinstance(ids[0], list) else [ids]
    return all(map(_is_group, groups)) and any(groups)


def _is_group(ids: object) -> bool:
    return isinstance(ids, list) and all(type(block) is int and block >= 0 for block in ids)


def _why(answer: object) -> str:
    """The server's error, or its finish reasons: they distinguish an aborted prefill from a missing connector."""
    # Some gateways wrap an error in a 200.
    if isinstance(answer, dict) and answer.get("error"):
        return f"; it reports the error: {_quoted(answer['error'])}"
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list):
        return ""
    reasons = [_quoted(choice.get("finish_reason")) for choice in choices[:_MOST_REASONS] if isinstance(choice, dict)]
    return (
        f" (finish_reason {', '.join(reasons)}; vLLM leaves them out if the request was aborted, or if the server "
        "has no connector that hands KV to another server)"
    )


def _quoted(value: object) -> str:
    """A server's text, or the message of its error object, on one line."""
    message = value.get("message") if isinstance(value, dict) else value
    return one_line(message if isinstance(message, str) else type(value).__name__ if value is not None else "null")
