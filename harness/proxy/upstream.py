"""The servers behind the proxy, and the connections to them."""

import io
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from aiohttp.hdrs import AUTHORIZATION
from multidict import CIMultiDict
from yarl import URL

from harness.errors import UsageError
from harness.facts import Role
from harness.proxy.errors import one_line
from harness.proxy.status import UpstreamCounts
from harness.redact import redact_url

# vLLM's HTTP server (uvicorn) closes a connection that was idle for 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). A pool that
# keeps connections longer sometimes sends a request into a closing one, and a POST without an answer must not be sent
# again, since it may have been served. So the pool closes idle connections first, and no request is ever retried.
KEEPALIVE_S = 2.0
CONNECT_TIMEOUT_S = 10.0
# One read takes all bytes that have arrived. At this limit D must wait until a slow client has read on.
READ_BUFFER_BYTES = 1 << 20
# aiohttp warns about larger bodies that are bytes and not a file object.
_LARGE_BODY_BYTES = 1 << 20


class UpstreamFailed(Exception):  # noqa: N818 - reads as what happened
    """No whole answer came (502). ``reached`` is false only if certainly no byte of the request arrived."""

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Upstream:
    """One server: P or D."""

    role: Role
    name: str
    """The URL shown to clients and in logs: without credentials, query and trailing slash."""
    counts: UpstreamCounts
    base: str
    """The URL to which a request's path is appended: without credentials and query."""
    query: str = field(repr=False)
    """The query of the server's URL, added to every request: some gateways want a key there."""
    authorization: str | None = field(repr=False)
    """The ``Authorization`` header of every request, from user and password in the server's URL."""

    def url(self, path_qs: str) -> URL:
        """The URL of a request with this path and query."""
        joint = "&" if "?" in path_qs else "?"
        return URL(f"{self.base}{path_qs}{joint if self.query else ''}{self.query}", encoded=True)

    def headers(self, headers: Mapping[str, str]) -> CIMultiDict[str]:
        """The headers of a request; this server's own credentials, if it has any, replace the client's."""
        sent = CIMultiDict(headers)
        if self.authorization is not None:
            sent[AUTHORIZATION] = self.authorization
        return sent

    def count_answer(self, status: int) -> None:
        """Count an answer that arrived whole."""
        if status == 200:
            self.counts.completed += 1
        else:
            self.counts.http_errors += 1


def parse_upstream(role: Role, text: str) -> Upstream:
    """An upstream from a URL or from ``host:port``. Raises UsageError if the text is not an HTTP URL."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        shown = redact_url(text)
        raise UsageError(f"{shown!r} is not the URL of a {role} server. Give a URL like http://127.0.0.1:8100.")
    url, query = url.with_query(None).with_fragment(None), url.raw_query_string
    base = str(url.with_user(None)).rstrip("/")
    authorization = _basic(url)
    name = base if authorization is None else redact_url(str(url)).rstrip("/")
    return Upstream(role, name, UpstreamCounts(name), base, query, authorization)


def _basic(url: URL) -> str | None:
    if url.user is None and url.password is None:
        return None
    return "Basic " + b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()


def open_session() -> aiohttp.ClientSession:
    """A connection pool without a limit (the clients choose the load) or a deadline (an answer may take hours)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
    )


async def ask(  # noqa: PLR0913 - the parts of an HTTP request
    session: aiohttp.ClientSession,
    upstream: Upstream,
    *,
    method: str,
    path_qs: str,
    headers: CIMultiDict[str],
    body: bytes | None,
) -> aiohttp.ClientResponse:
    """The answer, once its headers are there; the caller closes it. Raises (and counts) UpstreamFailed."""
    upstream.counts.requests += 1
    url, headers = upstream.url(path_qs), upstream.headers(headers)
    try:
        answer = await session.request(method, url, data=_payload(body), headers=headers, allow_redirects=False)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        upstream.counts.unreachable += 1
        raise UpstreamFailed(_message(upstream, "cannot be reached", error), reached=False) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(upstream, error) from error
    # 101 to a request that did not ask for another protocol.
    if answer.status < HTTPStatus.OK:
        answer.close()
        raise _broken(upstream, ValueError(f"status {answer.status} is not an answer"))
    return answer


async def read_available(upstream: Upstream, answer: aiohttp.ClientResponse) -> bytes:
    """The bytes of the body that have arrived; empty at its end. Raises (and counts) UpstreamFailed."""
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(upstream, error) from error


async def read_whole(upstream: Upstream, answer: aiohttp.ClientResponse) -> bytes:
    """The whole body; raises like ``read_available``."""
    chunks = []
    while chunk := await read_available(upstream, answer):
        chunks.append(chunk)
    return b"".join(chunks)


def _broken(upstream: Upstream, error: Exception) -> UpstreamFailed:
    upstream.counts.broken += 1
    return UpstreamFailed(_message(upstream, "closed the connection before the end of its answer", error), reached=True)


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if body is not None and len(body) >= _LARGE_BODY_BYTES else body


def _message(upstream: Upstream, what: str, error: Exception) -> str:
    return f"The {upstream.role} server {upstream.name} {what}: {one_line(error)}"
