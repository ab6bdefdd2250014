"""Chooses the URL of each request; pure except for the state of the round robin."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from yarl import URL

from harness.errors import UsageError
from harness.scenario import RESET_PATH, Endpoint, Purpose, Request, Route

_OPTION = {
    Route.PROXY: "--base-url",
    Route.PREFILL: "--prefill-url",
    Route.DECODE: "--decode-url",
    Route.REFERENCE: "--reference-url",
}


class Targets:
    """The servers of each route, by base URL (``http://host:port``, without ``/v1``)."""

    def __init__(self, routes: Mapping[Route, Sequence[str]]) -> None:
        # Parsed once, since parsing a URL costs more than choosing one.
        self._urls = {
            (route, endpoint): tuple(URL(base.rstrip("/") + endpoint) for base in bases)
            for route, bases in routes.items()
            for endpoint in (*Endpoint, RESET_PATH)
        }
        self._turns = {route: cycle(range(len(bases))) for route, bases in routes.items() if bases}

    def url(self, request: Request) -> URL:
        """The URL of ``request.server``, or of the next server in turn. Raises UsageError for an unknown server."""
        urls = self._urls.get((request.route, RESET_PATH if request.purpose is Purpose.RESET else request.endpoint), ())
        number = request.server
        if not urls or (number is not None and not 0 <= number < len(urls)):
            raise UsageError(_unknown(request, len(urls)))
        return urls[next(self._turns[request.route]) if number is None else number]


def _unknown(request: Request, known: int) -> str:
    wanted = "a server" if request.server is None else f"server {request.server} (counted from 0)"
    return (
        f"The request needs {wanted} of the route {request.route}, but {known} are known: "
        f"give more with {_OPTION[request.route]}."
    )
