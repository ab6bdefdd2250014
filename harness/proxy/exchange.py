"""One request on its way through the proxy."""

import uuid

from aiohttp import web
from multidict import CIMultiDict

from harness.facts import Role
from harness.proxy.contract import Endpoint, Json
from harness.proxy.headers import DECODE, PREFILL, REQUEST_ID, request_headers, writable
from harness.proxy.status import Phase
from harness.proxy.upstream import Upstream

_NAMES_SERVER = {Role.PREFILL: PREFILL, Role.DECODE: DECODE}


class Exchange:
    """What is known about a request while it is served.

    Its id is the client's ``X-Request-Id``, else the ``request_id`` of its body, else a new one. vLLM prefers the
    header, and so both servers log the same id, and the client sees it in the answer.
    """

    __slots__ = ("endpoint", "own_headers", "phase", "raw", "request", "upstream_headers")

    def __init__(self, request: web.Request, endpoint: Endpoint) -> None:
        self.request = request
        self.raw = b""
        """The body, once it has arrived."""
        self.endpoint = endpoint
        self.phase = Phase.REQUEST
        named = request.headers.get(REQUEST_ID)
        self.own_headers = {REQUEST_ID: named if named and writable(named) else str(uuid.uuid4())}
        """What the proxy adds to the answer: the id, and the servers that were asked."""
        self.upstream_headers: CIMultiDict[str] = CIMultiDict()

    @property
    def request_id(self) -> str:
        """The id that client, P and D share."""
        return self.own_headers[REQUEST_ID]

    def identify(self, body: Json) -> None:
        """Settle the id, now that the body can be read. Raises RejectedRequest: headers that cannot be passed on."""
        named = body.get("request_id")
        if not self.request.headers.get(REQUEST_ID) and _fits_a_header(named):
            self.own_headers[REQUEST_ID] = str(named)
        self.upstream_headers = request_headers(self.request.headers, self.request_id)

    def turn_to(self, server: Upstream) -> None:
        """Note which server is asked."""
        self.own_headers[_NAMES_SERVER[server.role]] = server.name


def _fits_a_header(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()
