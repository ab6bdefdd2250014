"""The servers behind the proxy, and the connections to them."""

import errno
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType

from httptools import HttpParserError, HttpParserUpgrade
from yarl import URL

from harness.errors import UsageError
from harness.facts import Role
from harness.proxy.answer import Answer, Broken
from harness.proxy.detours import Address, Detours
from harness.proxy.errors import one_line
from harness.proxy.headers import Header, without, written
from harness.proxy.pool import Pool, ServerConnection
from harness.proxy.status import UpstreamCounts
from harness.redact import redact_url

FAILURES = (Broken, OSError, HttpParserError, HttpParserUpgrade)
"""The exceptions of an answer that does not arrive whole."""


class UpstreamFailed(Exception):  # noqa: N818 - reads as what happened
    """No whole answer came. ``reached`` is false only if certainly no byte of the request arrived.

    ``status``: what the client is answered. 507 if the proxy itself has run out of something, so that nobody takes it
    for a failure of the server; else 502.
    """

    def __init__(self, message: str, *, reached: bool, status: int = HTTPStatus.BAD_GATEWAY) -> None:
        super().__init__(message)
        self.reached = reached
        self.status = status


@dataclass(frozen=True, slots=True)
class Upstream:
    """One server: P or D."""

    role: Role
    name: str
    """The URL shown to clients and in logs: without credentials, query and trailing slash."""
    counts: UpstreamCounts
    base: bytes
    """The path before every request's path, without a trailing slash."""
    host: bytes
    """The ``Host`` header."""
    query: bytes = field(repr=False)
    """The query of the server's URL, added to every request: some gateways want a key there."""
    authorization: bytes | None = field(repr=False)
    """The ``Authorization`` header of every request, from user and password in the server's URL."""
    pool: Pool = field(repr=False, compare=False)
    """The connections to the server."""

    def request(self, method: str, path_qs: bytes, headers: list[Header], body: bytes | None) -> bytes:
        """The bytes of a request; this server's own credentials, if it has any, replace the client's."""
        joint = b"" if not self.query else b"&" if b"?" in path_qs else b"?"
        target = b"%b %b%b%b%b" % (method.encode(), self.base, path_qs, joint, self.query)
        if self.authorization is not None:
            headers = [*without(headers, b"authorization"), (b"Authorization", self.authorization)]
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        return b"%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (target, self.host, written(headers), length, body or b"")

    def count_answer(self, status: int) -> None:
        """Count an answer that arrived whole."""
        if status == 200:
            self.counts.completed += 1
        else:
            self.counts.http_errors += 1


def parse_upstream(role: Role, text: str, detours: Detours = MappingProxyType({})) -> Upstream:
    """An upstream from a URL or from ``host:port``. Raises UsageError if the text is not an HTTP URL."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        shown = redact_url(text)
        raise UsageError(f"{shown!r} is not the URL of a {role} server. Give a URL like http://127.0.0.1:8100.")
    name = _shown(url)
    meant = Address(str(url.raw_host), url.port or 0)
    pool = Pool(*detours.get(meant, meant), tls=url.scheme == "https")
    base, query = url.raw_path.rstrip("/").encode(), url.raw_query_string.encode()
    return Upstream(role, name, UpstreamCounts(name), base, _host(url), query, _basic(url), pool)


def _shown(url: URL) -> str:
    url = url.with_query(None).with_fragment(None)
    hidden = str(url) if _basic(url) is None else redact_url(str(url))
    return hidden.rstrip("/")


def _host(url: URL) -> bytes:
    return (url.host_port_subcomponent or "").encode()


def _basic(url: URL) -> bytes | None:
    if url.user is None and url.password is None:
        return None
    return b"Basic " + b64encode(f"{url.user or ''}:{url.password or ''}".encode())


async def ask(
    upstream: Upstream,
    *,
    method: str,
    path_qs: bytes,
    headers: list[Header],
    body: bytes | None,
) -> Answer:
    """The answer, once its headers are there; the caller closes it. Raises (and counts) UpstreamFailed."""
    upstream.counts.requests += 1
    request = upstream.request(method, path_qs, headers, body)
    connection = await _connected(upstream)
    # Only what has no effect may be sent twice (RFC 9110, 9.2.2).
    if connection.reused and method == "GET":
        with suppress(*FAILURES):
            return await _head(connection.ask(request))
        connection = await _connected(upstream, fresh=True)
    try:
        return await _head(connection.ask(request))
    except FAILURES as error:
        raise broken(upstream, error) from error


async def _connected(upstream: Upstream, *, fresh: bool = False) -> ServerConnection:
    try:
        return await upstream.pool.take(fresh=fresh)
    # A name that cannot be a host name raises ValueError.
    except (OSError, ValueError) as error:
        upstream.counts.unreachable += 1
        status = HTTPStatus.INSUFFICIENT_STORAGE if _out_of_files(error) else HTTPStatus.BAD_GATEWAY
        raise UpstreamFailed(_message(upstream, _unreached(error), error), reached=False, status=status) from error


def _out_of_files(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _unreached(error: Exception) -> str:
    if _out_of_files(error):
        return "was not asked, since the proxy may open no more files: raise the proxy's limit (ulimit -n)"
    return "cannot be reached"


async def _head(answer: Answer) -> Answer:
    try:
        await answer.head()
    except BaseException:
        answer.close()
        raise
    return answer


async def read_whole(upstream: Upstream, answer: Answer) -> bytes:
    """The whole body. Raises (and counts) UpstreamFailed."""
    try:
        return await answer.whole()
    except FAILURES as error:
        raise broken(upstream, error) from error


def broken(upstream: Upstream, error: Exception) -> UpstreamFailed:
    """The exception for an answer that broke off, which is counted."""
    upstream.counts.broken += 1
    return UpstreamFailed(_message(upstream, "closed the connection before the end of its answer", error), reached=True)


def _message(upstream: Upstream, what: str, error: Exception) -> str:
    return f"The {upstream.role} server {upstream.name} {what}: {one_line(error)}"
