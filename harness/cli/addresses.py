"""Addresses on the command line: what can be none is told before anything is asked. Pure."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.redact import redact_url

_SCHEMES = ("http", "https")


def address(text: str, flag: str) -> str:
    """A server's URL without a slash, or ``/v1``, at its end.

    Raises UsageError: it is none, or says more than which server it is.
    """
    shown = redact_url(text)
    if not _is_one(text):
        shown = shown if shown and shown.isprintable() and " " not in shown else repr(shown)
        raise UsageError(f"{flag} {shown}: not a URL. Give scheme, host and port, as in http://127.0.0.1:8000.")
    if "?" in text or "#" in text:
        raise UsageError(
            f"{flag} {shown}: a server is named by scheme, host, port and path alone. A key that its "
            "gateway wants goes into --header NAME=VALUE, or before the host, as in http://user:password@host:8000."
        )
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_one(text: str) -> bool:
    if not text.isprintable() or any(one.isspace() for one in text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close; a port beyond 65535, or in letters
        return False


def refuse_two_credentials(urls: Sequence[str], headers: Mapping[str, str]) -> None:
    """Raises UsageError where a URL and a header both say who asks: no request can carry both."""
    both = [url for url in urls if "@" in urlsplit(url).netloc]
    if both and any(name.lower() == "authorization" for name in headers):
        raise UsageError(
            f"{redact_url(both[0])} names a user, and --header gives an Authorization too: a request can carry one of "
            "them. Leave one out."
        )
