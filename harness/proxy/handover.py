"""What P must have said before D is asked. No I/O.

A handover is complete or it is not made. vLLM's decode side fails an assertion, and with it the whole
engine, on empty ``remote_block_ids``; where a ``remote_*`` key is missing it promises external tokens that nobody
fetches, and the request hangs (NIXL's ``get_num_new_matched_tokens`` and ``update_state_after_alloc``).
"""

import json

from harness.proxy.contract import PARAMS, REMOTE_KEYS, Json


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
    return params


def missing_from(params: Json) -> list[str]:
    """What D would need and P did not say; empty if the handover is complete."""
    missing = [key for key in REMOTE_KEYS if not params.get(key)]
    if not _has_blocks(params.get("remote_block_ids")):
        missing.append("remote_block_ids (none, or not block ids)")
    # Without it D ignores the rest and computes the prompt itself: right output, nothing transferred.
    if params.get("do_remote_prefill") is not True:
        missing.append("do_remote_prefill: true")
    return missing


def _has_blocks(ids: object) -> bool:
    """Whether these are block ids and at least one: flat, or one list for each KV cache group."""
    if not isinstance(ids, list) or not ids:
        return False
    groups = ids if isinstance(ids[0], list) else [ids]
    return all(map(_is_group, groups)) and any(groups)


def _is_group(ids: object) -> bool:
    return isinstance(ids, list) and {type(block) for block in ids} <= {int}


def _why(answer: object) -> str:
    """The finish reasons, which tell an aborted prefill from a server without a connector."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list):
        return ""
    reasons = [str(choice.get("finish_reason")) for choice in choices if isinstance(choice, dict)]
    return (
        f" (finish_reason {', '.join(reasons)}; vLLM leaves them out if the request was aborted, or if the server "
        "has no connector that hands KV to another server)"
    )
