"""What a proxy sends to P, and what it hands on of P's answer, by the contract between proxy, P and D."""

from collections.abc import Mapping
from typing import Any

from harness.proxy.contract import prefill_request
from harness.proxy.first_token import first_token
from harness.scenario import Endpoint


def prefill_body(body: Mapping[str, Any], endpoint: Endpoint = Endpoint.COMPLETIONS) -> dict[str, Any]:
    """Turn a client's body into the one for P, exactly as the harness's proxy does."""
    return prefill_request(body, endpoint)


def prefill_first(answer: Mapping[str, Any]) -> str | None:
    """What the harness's proxy hands on of P's answer, as the value of its response header; None if nothing."""
    return first_token(answer)
