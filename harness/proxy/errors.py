"""The proxy's own error responses, in OpenAI's format, and exceptions as text for them."""

import json
from http import HTTPStatus

from harness.proxy.page import JSON, Page
from harness.redact import redact_text

_KINDS = {400: "BadRequestError", 502: "BadGatewayError", 503: "ServiceUnavailableError"}
_LONGEST = 300
"""Characters."""


def one_line(text: object) -> str:
    """The beginning of a server's or client's text (or exception) as one line, without credentials."""
    line = redact_text(" ".join(str(text).split()))[:_LONGEST]
    return line or (type(text).__name__ if isinstance(text, Exception) else "")


def error_page(status: int, message: str, param: str | None = None) -> Page:
    """``{"error": {message, type, param, code}}``, like vLLM's errors; a server's errors are forwarded unchanged."""
    kind = _KINDS.get(status) or HTTPStatus(status).phrase
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return Page(status, json.dumps(body).encode(), JSON)
