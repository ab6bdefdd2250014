"""Which prefills a simulated server begins late: a share of the prompts that decode fetches, drawn from the prompt."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_ONE = 1 << 64


def is_slow(body: Mapping[str, Any], share: float) -> bool:
    """Whether the request of this body is one of the slow prefills. The same prompt is slow in each run, or in none.

    Only requests whose KV another server fetches count, so that verification takes as long as without slow prefills.
    """
    wanted = body.get("kv_transfer_params")
    if not share or not isinstance(wanted, Mapping) or not wanted.get("do_remote_decode"):
        return False
    prompt = json.dumps(body.get("prompt", body.get("messages")))
    drawn = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
    return drawn < share * _ONE
