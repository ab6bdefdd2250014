"""Sends requests through a simulated prefill and decode server, without a proxy or a socket."""

from collections.abc import Mapping
from typing import Any

from harness.scenario import Endpoint
from harness.sim import SimPair
from harness.sim.transit import prefill_body, prefill_first

Json = dict[str, Any]


def through(
    pair: SimPair, body: Mapping[str, Any], request_id: str, endpoint: Endpoint = Endpoint.COMPLETIONS
) -> tuple[int, Json]:
    """Serve one request through the first P and the first D; return status and answer."""
    status, answer = pair.prefill.handle(endpoint, prefill_body(body, endpoint), request_id)
    if status != 200:
        return status, answer
    params = answer["kv_transfer_params"]
    if not params:
        return 502, {"error": {"message": "P answered without kv_transfer_params", "code": 502}}
    return pair.decode.handle(endpoint, {**body, "kv_transfer_params": params}, request_id)


def through_together(
    pair: SimPair,
    bodies: Mapping[str, Mapping[str, Any]],
    endpoint: Endpoint = Endpoint.COMPLETIONS,
    *,
    first: dict[str, str | None] | None = None,
) -> dict[str, tuple[int, Json]]:
    """Serve requests, given by id, through the first P and D at once; return status and answer by id.

    ``first`` receives what a proxy hands on of P's answers, by id.
    """
    prefills = {
        request_id: pair.prefill.submit(endpoint, prefill_body(body, endpoint), request_id)
        for request_id, body in bodies.items()
    }
    pair.prefill.settle()
    decodes = {}
    for request_id, job in prefills.items():
        status, answer = pair.prefill.reply(job)
        if first is not None and status == 200:
            first[request_id] = prefill_first(answer)
        params = answer.get("kv_transfer_params") if status == 200 else None
        if params:
            body = {**bodies[request_id], "kv_transfer_params": params}
            decodes[request_id] = pair.decode.submit(endpoint, body, request_id)
    pair.decode.settle()
    return {request_id: pair.decode.reply(job) for request_id, job in decodes.items()}
