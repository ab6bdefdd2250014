"""The proxy's own answers to what went wrong, in the form OpenAI's clients expect."""

import json
from http import HTTPStatus

from aiohttp import web

_KINDS = {400: "BadRequestError", 502: "BadGatewayError", 503: "ServiceUnavailableError"}


def error_response(status: int, message: str, param: str | None = None) -> web.Response:
    """``{"error": {message, type, param, code}}``, as vLLM has it; a server's own errors are never rewritten."""
    kind = _KINDS.get(status) or HTTPStatus(status).phrase
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")
