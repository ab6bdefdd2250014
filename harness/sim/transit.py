"""The body that a proxy sends to P, by the contract between proxy, P and D."""

from collections.abc import Mapping
from typing import Any

from harness.scenario import Endpoint

Json = dict[str, Any]
_ASK: Json = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_request_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
_NOT_FOR_P = ("stream_options", "min_tokens", "prompt_logprobs", "echo", "return_token_ids")


def prefill_body(body: Mapping[str, Any], endpoint: Endpoint = Endpoint.COMPLETIONS) -> Json:
    """Turn a client's body into the one for P: one token of one sequence, not streamed."""
    asked = {key: value for key, value in body.items() if key not in _NOT_FOR_P}
    asked |= {"max_tokens": 1, "n": 1, "stream": False, "kv_transfer_params": dict(_ASK)}
    return asked | ({"max_completion_tokens": 1} if endpoint is Endpoint.CHAT else {})
