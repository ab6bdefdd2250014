"""Pushes a run's results to a Prometheus Pushgateway, where they replace those of the last run with the same label."""

from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_client import push_to_gateway
from prometheus_client.exposition import basic_auth_handler

from harness.redact import redact_secrets, redact_text, redact_url
from harness.reports.files.prometheus import PREFIX, registry_of
from harness.reports.report import Report
from harness.reports.requests import RequestRow
from harness.reports.text import clean

SECONDS = 10.0
"""For the whole push; the run has ended, and nothing else waits."""


def push(report: Report, requests: Sequence[RequestRow], url: str) -> str:
    """Push under the job ``pd_harness`` and the run's label, if it has one. Returns why that failed, or nothing."""
    label = report.identity.label
    try:
        gateway, more = _without_credentials(url)
        push_to_gateway(
            gateway,
            job=PREFIX,
            registry=registry_of(report, requests),
            grouping_key={"label": label} if label else None,
            timeout=SECONDS,
            **more,
        )
    except HTTPError as error:
        return f"{redact_url(url)} answered {error.code} {clean(str(error.reason))}"
    except (OSError, HTTPException, ValueError) as error:
        # The text of an error may quote the URL.
        return f"{redact_url(url)}: {_clean(str(error) or type(error).__name__, url)}"
    return ""


def _clean(text: str, url: str) -> str:
    password = urlsplit(url).password
    return clean(redact_secrets(redact_text(text), [one for one in (password,) if one]))


def _without_credentials(url: str) -> tuple[str, dict[str, Any]]:
    """The URL without user and password, and the handler that sends them as HTTP's basic authentication."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, {}
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user, password = unquote(parts.username), unquote(parts.password or "")
    return bare, {"handler": partial(basic_auth_handler, username=user, password=password)}
