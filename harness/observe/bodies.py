"""Reads servers' answers in bounded memory, and only from the servers that were named.

Rule 1: of an answer at most so many bytes are read; aiohttp decodes compressed bodies in bounded parts.
Rule 2: redirects are not followed: they could lead to another host, with the headers that hold the run's credentials.
"""

from http import HTTPStatus

import aiohttp

from harness.redact import redact_url

LARGEST = 1 << 24
"""Bytes of an answer about a server. One with eight engines exposes less than 2 MB of metrics."""
_SHOWN = 300
"""Characters of a server's text in an error."""


class TooLong(ValueError):  # noqa: N818 - reads as what happened
    """The answer is longer than any that a server of vLLM gives to this question."""


async def get_text(session: aiohttp.ClientSession, url: str, seconds: float, *, most: int = LARGEST) -> tuple[int, str]:
    """Status and body of a GET within so many seconds.

    Raises aiohttp.ClientError, OSError (TimeoutError included), and ValueError if it redirects or is too long.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with session.get(url, timeout=timeout, allow_redirects=False) as response:
        _refuse_redirect(response)
        return response.status, await text_of(response, most=most)


async def get_ok(session: aiohttp.ClientSession, url: str, seconds: float, *, end: str = "") -> str:
    """The body of a GET that was answered with a status below 400; raises like ``get_text``.

    ``end``: how a whole body ends. Raises ValueError if it does not, and HTTP does not tell either whether it is whole.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with session.get(url, timeout=timeout, allow_redirects=False) as response:
        response.raise_for_status()
        _refuse_redirect(response)
        text = await text_of(response)
        if not (_has_an_end(response) or text.endswith(end)):
            raise ValueError("the answer says neither its length nor its end, so nobody knows whether it is whole")
        return text


def _has_an_end(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer that breaks off differs from a whole one; aiohttp then raises an error."""
    return response.content_length is not None or "chunked" in response.headers.get("Transfer-Encoding", "").lower()


async def text_of(response: aiohttp.ClientResponse, *, most: int = LARGEST) -> str:
    """The body as UTF-8, whatever its headers say. Raises TooLong, aiohttp.ClientError and OSError."""
    return (await body_of(response, most=most)).decode("utf-8", errors="replace")


async def body_of(response: aiohttp.ClientResponse, *, most: int = LARGEST) -> bytes:
    """The body of at most ``most`` bytes. Raises TooLong, aiohttp.ClientError and OSError."""
    parts, size = list[bytes](), 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            raise TooLong(f"the answer is longer than {most:,} bytes")
    return b"".join(parts)


def why(error: Exception) -> str:
    """An error as one line of a few hundred printable characters: it may quote what a server sent."""
    text = " ".join(str(error).split())
    return "".join(one if one.isprintable() else "?" for one in text[:_SHOWN]) or type(error).__name__


def _refuse_redirect(response: aiohttp.ClientResponse) -> None:
    location = response.headers.get("Location", "")
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST and location:
        raise ValueError(
            f"it redirects (HTTP {response.status}) to {redact_url(location)[:_SHOWN]}, and redirects are not "
            "followed: give the address of the server itself"
        )
