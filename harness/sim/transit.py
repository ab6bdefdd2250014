"""A request through both servers, without a proxy or a socket: what the contract between proxy, P and D says."""

from collections.abc import Mapping
from typing import Any

from harness.scenario import Endpoint
from harness.sim.deployment import SimPair

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
    """What P is asked: one token, no stream, one of n."""
    asked = {key: value for key, value in body.items() if key not in _NOT_FOR_P}
    asked |= {"max_tokens": 1, "n": 1, "stream": False, "kv_transfer_params": dict(_ASK)}
    return asked | ({"max_completion_tokens": 1} if endpoint is Endpoint.CHAT else {})


def through(
    pair: SimPair, body: Mapping[str, Any], request_id: str, endpoint: Endpoint = Endpoint.COMPLETIONS
) -> tuple[int, Json]:
    """Serve one request through the first P and the first D, to its end: status and answer."""
    status, answer = pair.prefill.handle(endpoint, prefill_body(body, endpoint), request_id)
    if status != 200:
        return status, answer
    params = answer["kv_transfer_params"]
    if not params:
        return 502, {"error": {"message": "P answered without kv_transfer_params", "code": 502}}
    return pair.decode.handle(endpoint, {**body, "kv_transfer_params": params}, request_id)


def through_together(
    pair: SimPair, bodies: Mapping[str, Mapping[str, Any]], endpoint: Endpoint = Endpoint.COMPLETIONS
) -> dict[str, tuple[int, Json]]:
    """Serve requests through the first P and D, all in flight at once; ids to bodies in, ids to answers out."""
    prefills = {
        request_id: pair.prefill.submit(endpoint, prefill_body(body, endpoint), request_id)
        for request_id, body in bodies.items()
    }
    pair.prefill.settle()
    decodes = {}
    for request_id, job in prefills.items():
        status, answer = pair.prefill.reply(job)
        params = answer.get("kv_transfer_params") if status == 200 else None
        if params:
            body = {**bodies[request_id], "kv_transfer_params": params}
            decodes[request_id] = pair.decode.submit(endpoint, body, request_id)
    pair.decode.settle()
    return {request_id: pair.decode.reply(job) for request_id, job in decodes.items()}
