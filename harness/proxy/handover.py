"""What P must have said before D is asked. No I/O.

A handover is complete or it is not made. vLLM's decode side fails an assertion, and with it the whole
engine, on empty ``remote_block_ids``; where a ``remote_*`` key is missing it promises external tokens that nobody
fetches, and the request hangs (NIXL's ``get_num_new_matched_tokens`` and ``update_state_after_alloc``).
"""

import json

from harness.proxy.contract import PARAMS, REMOTE_KEYS, Json
from harness.redact import redact_text

_PORTS = 1 << 16
_REASONS = 4
_SHOWN = 300
"""Characters of a server's words."""


class IncompleteHandover(Exception):  # noqa: N818 - reads as what happened
    """P is wrong (502): its answer cannot be handed to D."""


def take_handover(raw: bytes) -> Json:
    """P's ``kv_transfer_params``, complete.

    Raises:
        IncompleteHandover: says what is missing.

    """
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
    return params


def missing_from(params: Json) -> list[str]:
    """What D would need and P did not say, or said as what it cannot be; empty if the handover is complete."""
    missing = [key for key in REMOTE_KEYS if not _is_given(key, params.get(key))]
    if not _has_blocks(params.get("remote_block_ids")):
        missing.append("remote_block_ids (none, or not block ids)")
    # Without it D ignores the rest and computes the prompt itself: right output, nothing transferred.
    if params.get("do_remote_prefill") is not True:
        missing.append("do_remote_prefill: true")
    return missing


def _is_given(key: str, value: object) -> bool:
    if key == "remote_port":
        return type(value) is int and 0 < value < _PORTS
    return isinstance(value, str) and value != ""


def _require_json(params: Json) -> None:
    """NaN, and what is nested too deeply, can be read and not be passed on."""
    try:
        json.dumps(params, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise IncompleteHandover(f"its {PARAMS} cannot be passed on: {error}") from None


def _has_blocks(ids: object) -> bool:
    """Whether these are block ids and at least one: flat, or one list for each KV cache group."""
    if not isinstance(ids, list) or not ids:
        return False
    groups = ids if isinstance(ids[0], list) else [ids]
    return all(map(_is_group, groups)) and any(groups)


def _is_group(ids: object) -> bool:
    return isinstance(ids, list) and all(type(block) is int and block >= 0 for block in ids)


def _why(answer: object) -> str:
    """The server's own words, or the finish reasons: these tell an aborted prefill from one without a connector."""
    if isinstance(answer, dict) and answer.get("error"):  # a gateway's 200 around an error
        return f"; it says: {_shown(answer['error'])}"
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list):
        return ""
    reasons = [_shown(choice.get("finish_reason")) for choice in choices[:_REASONS] if isinstance(choice, dict)]
    return (
        f" (finish_reason {', '.join(reasons)}; vLLM leaves them out if the request was aborted, or if the server "
        "has no connector that hands KV to another server)"
    )


def _shown(said: object) -> str:
    """A server's words on one line; an error object's message where it has one."""
    message = said.get("message") if isinstance(said, dict) else said
    text = message if isinstance(message, str) else type(said).__name__ if said is not None else "null"
    return redact_text(" ".join(text.split()))[:_SHOWN]
