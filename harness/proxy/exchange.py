"""The state of one request in the proxy."""

import uuid

from harness.facts import Role
from harness.proxy.body import Body
from harness.proxy.client import ClientConnection
from harness.proxy.contract import Endpoint
from harness.proxy.headers import DECODE, PREFILL, PREFILL_FIRST, REQUEST_ID, Header, request_headers, writable
from harness.proxy.request import Request
from harness.proxy.status import Stage
from harness.proxy.upstream import Upstream

_SERVER_HEADERS = {Role.PREFILL: PREFILL, Role.DECODE: DECODE}


class Exchange:
    """One request while it is served.

    Its id is the client's ``X-Request-Id``, else the ``request_id`` in its body, else a new one. Both servers get the
    id in the header, which vLLM prefers, so both log the same id; the client gets it with the answer.
    """

    __slots__ = ("client", "endpoint", "own_headers", "path_qs", "request", "stage", "upstream_headers")

    def __init__(self, request: Request, client: ClientConnection, endpoint: Endpoint) -> None:
        self.request = request
        self.client = client
        self.endpoint = endpoint
        self.path_qs = request.path_qs
        self.stage = Stage.REQUEST
        given = request.named.get(REQUEST_ID.lower())
        usable = given if given and writable(given) else None
        self.own_headers = {REQUEST_ID: usable or str(uuid.uuid4()).encode()}
        """Headers that the proxy adds to the answer: the id, the servers that were asked, what P says of its token."""
        self.upstream_headers: list[Header] = []

    @property
    def request_id(self) -> str:
        """The id shared by client, P and D."""
        return self.own_headers[REQUEST_ID].decode()

    def identify(self, body: Body) -> None:
        """Choose the final id, which the body may hold. Raises RejectedRequest for headers that cannot be forwarded."""
        if not self.request.named.get(REQUEST_ID.lower()) and _is_header_value(given := body.request_id):
            self.own_headers[REQUEST_ID] = str(given).encode()
        self.upstream_headers = request_headers(self.request.headers, self.own_headers[REQUEST_ID])

    def note_server(self, server: Upstream) -> None:
        """Record which server is asked, for the answer's headers."""
        self.own_headers[_SERVER_HEADERS[server.role]] = server.name.encode()

    def note_first_token(self, value: str | None) -> None:
        """Record P's log-probabilities for its one token, for the answer's headers; None if P reported none."""
        if value is not None:
            self.own_headers[PREFILL_FIRST] = value.encode()


def _is_header_value(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()
