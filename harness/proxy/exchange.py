"""The state of one request in the proxy."""

import uuid

from aiohttp import web
from multidict import CIMultiDict

from harness.facts import Role
from harness.proxy.contract import Endpoint, Json
from harness.proxy.headers import DECODE, PREFILL, PREFILL_FIRST, REQUEST_ID, request_headers, writable
from harness.proxy.status import Stage
from harness.proxy.upstream import Upstream

_SERVER_HEADERS = {Role.PREFILL: PREFILL, Role.DECODE: DECODE}


class Exchange:
    """One request while it is served.

    Its id is the client's ``X-Request-Id``, else the ``request_id`` in its body, else a new one. Both servers get the
    id in the header, which vLLM prefers, so both log the same id; the client gets it with the answer.
    """

    __slots__ = ("endpoint", "own_headers", "raw", "request", "stage", "upstream_headers")

    def __init__(self, request: web.Request, endpoint: Endpoint) -> None:
        self.request = request
        self.raw = b""
        """The body, once it has arrived."""
        self.endpoint = endpoint
        self.stage = Stage.REQUEST
        given = request.headers.get(REQUEST_ID)
        self.own_headers = {REQUEST_ID: given if given and writable(given) else str(uuid.uuid4())}
        """Headers that the proxy adds to the answer: the id, the servers that were asked, what P says of its token."""
        self.upstream_headers: CIMultiDict[str] = CIMultiDict()

    @property
    def request_id(self) -> str:
        """The id shared by client, P and D."""
        return self.own_headers[REQUEST_ID]

    def identify(self, body: Json) -> None:
        """Choose the final id, which the body may hold. Raises RejectedRequest for headers that cannot be forwarded."""
        given = body.get("request_id")
        if not self.request.headers.get(REQUEST_ID) and _is_header_value(given):
            self.own_headers[REQUEST_ID] = str(given)
        self.upstream_headers = request_headers(self.request.headers, self.request_id)

    def note_server(self, server: Upstream) -> None:
        """Record which server is asked, for the answer's headers."""
        self.own_headers[_SERVER_HEADERS[server.role]] = server.name

    def note_first_token(self, value: str | None) -> None:
        """Record P's log-probabilities for its one token, for the answer's headers; None if P reported none."""
        if value is not None:
            self.own_headers[PREFILL_FIRST] = value


def _is_header_value(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()
