"""Checks the addresses that the user gives, before any request is sent. Pure."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.redact import redact_url

_SCHEMES = ("http", "https")


def address(text: str, source: str) -> str:
    """The server's URL without a trailing slash or ``/v1``; ``source``: the flag or argument that gave the text.

    Raises UsageError if the text is no URL, or has a query or a fragment.
    """
    shown = redact_url(text)
    if not _is_address(text):
        shown = shown if shown and shown.isprintable() and " " not in shown else repr(shown)
        raise UsageError(f"{source} {shown}: not a URL. Give scheme, host and port, as in http://127.0.0.1:8000.")
    if "?" in text or "#" in text:
        raise UsageError(
            f"{source} {shown}: give scheme, host, port and path, and nothing after them. A key that the gateway needs "
            "goes into --header NAME=VALUE, or before the host, as in http://user:password@host:8000."
        )
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_address(text: str) -> bool:
    if not text.isprintable() or any(one.isspace() for one in text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # Unbalanced brackets, or a port beyond 65535 or in letters.
        return False


def refuse_two_credentials(urls: Sequence[str], headers: Mapping[str, str]) -> None:
    """Raises UsageError if both a URL and a header carry credentials, since a request can carry only one of them."""
    both = [url for url in urls if "@" in urlsplit(url).netloc]
    if both and any(name.lower() == "authorization" for name in headers):
        raise UsageError(
            f"{redact_url(both[0])} names a user, and there is an Authorization header too: a request can carry only "
            "one of them. Leave one out."
        )
