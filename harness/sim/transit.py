"""The body that a proxy sends to P, by the contract between proxy, P and D."""

from collections.abc import Mapping
from typing import Any

from harness.proxy.contract import prefill_request
from harness.scenario import Endpoint


def prefill_body(body: Mapping[str, Any], endpoint: Endpoint = Endpoint.COMPLETIONS) -> dict[str, Any]:
    """Turn a client's body into the one for P, exactly as the harness's proxy does."""
    return prefill_request(body, endpoint)
