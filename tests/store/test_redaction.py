"""Credentials are replaced in shown and stored texts."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_fixtures import DEPLOYMENT, STARTED, ended

from harness.cli.serve import facts
from harness.facts import Role, Server, serving
from harness.history import Noted, ScrapeFailed
from harness.redact import redact_text, redact_url
from harness.store import RunStore, redact_argv

URL = "http://user:sesame@h:1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8100", "http://127.0.0.1:8100"),
        ("http://user:sesame@127.0.0.1:8100/v1", "http://<redacted>@127.0.0.1:8100/v1"),
        ("http://sesame@h:1", "http://<redacted>@h:1"),
        ("http://user:sesa@me@h:1", "http://<redacted>@h:1"),
        ("http://user:sesa/me@h:1", "http://<redacted>@h:1"),
        ("http://user:sesa?me#sesame@h:1", "http://<redacted>@h:1"),
        ("user:sesame@h:1", "<redacted>@h:1"),
        ("http://user:sesame@[::1]:1", "http://<redacted>@[::1]:1"),
        ("http://h:1/?anything=sesame&b=c", "http://h:1/?<redacted>"),
        ("http://h:1#sesame", "http://h:1?<redacted>"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_url(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Cannot connect to {URL}/metrics: refused", "Cannot connect to http://<redacted>@h:1/metrics: refused"),
        ("URL('http://u:ses'ame@h:1') is wrong", "URL('http://<redacted>@h:1') is wrong"),
        ("GET http://h/x?api_key=sesame&n=1: 401", "GET http://h/x?api_key=<redacted>&n=1: 401"),
        ("http://h/x?X-Amz-Signature=sesame", "http://h/x?X-Amz-Signature=<redacted>"),
        ("sent Authorization: Bearer sesame and so on", "sent Authorization: Bearer <redacted> and so on"),
        ("sent Authorization: Basic c2VzYW1l", "sent Authorization: Basic <redacted>"),
        ("<CIMultiDict('Authorization': 'sesame')>", "<CIMultiDict('Authorization': '<redacted>')>"),
        ('{"error": 1, "api_key": "sesame"}', '{"error": 1, "api_key": "<redacted>"}'),
        ("bearer sesame was refused", "bearer <redacted> was refused"),
        ("max_tokens=7, mail a@b, http://h:1/v1", "max_tokens=7, mail a@b, http://h:1/v1"),
        ("give it as KEY=VALUE", "give it as KEY=VALUE"),
    ],
)
def test_a_sentence_loses_only_its_credentials(text: str, shown: str) -> None:
    assert redact_text(text) == shown
    assert redact_text(shown) == shown


@given(st.text(st.characters(exclude_characters=' \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"', exclude_categories=["Z"])))
def test_a_password_of_any_characters_is_not_shown(rest: str) -> None:
    password = f"sesame{rest}sesame"
    for shown in (redact_url(f"http://user:{password}@h:1"), redact_text(f"GET http://user:{password}@h:1 failed")):
        assert "sesame" not in shown


def is_recognized(url: str, reported: str) -> bool:
    """Whether the URL that a proxy reports is matched to the server at ``url``, and not to another server."""
    servers = [Server(f"decode-{n}", Role.DECODE, each) for n, each in enumerate((url, "http://another.place:9"))]
    return serving(servers, reported) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (URL, "http://h:1"),
        (URL, "http://<redacted>@h:1"),
        (URL, "http://other:words@H:1/"),
        ("http://h:80", "http://h"),
        ("https://u@h:443/p", "https://h/p/"),
    ],
)
def test_a_server_is_recognized_without_its_credentials(one: str, other: str) -> None:
    assert is_recognized(one, other)
    assert is_recognized(other, one)


@pytest.mark.parametrize("other", ["http://h:2", "http://i:1", "http://h:1/v2", "http://user:sesame@h"])
def test_another_address_is_another_server(other: str) -> None:
    assert not is_recognized(URL, other)


def test_no_credential_in_an_errors_text_reaches_the_disk(tmp_path: Path) -> None:
    with RunStore.create(tmp_path) as store:
        store.record(replace(STARTED, argv=("--prefill-url", URL)))
        store.record(replace(ended("r", 0.0), cause=f"cut: {URL}", prefill_server=URL, decode_server=URL))
        store.record(ScrapeFailed(0.0, "prefill-0", "before", "s", "p", f"GET {URL}/metrics: refused"))
        store.record(Noted(0.0, f"asked {URL}"))
    assert "<redacted>" in (store.path / "history.jsonl").read_text()
    assert "sesame" not in (store.path / "history.jsonl").read_text()


def test_the_facts_that_serve_prints_show_no_credential() -> None:
    servers = (Server("prefill-0", Role.PREFILL, URL), Server("decode-0", Role.DECODE, "http://user:sesame@host"))
    shown = facts(replace(DEPLOYMENT, servers=servers, proxy_url=URL))
    assert "sesame" not in str(shown)
    assert (shown["prefill_port"], shown["decode_port"]) == (1, 80)


def test_a_url_on_the_command_line_is_shown_without_its_password() -> None:
    assert redact_argv(["--prefill-url", "http://u:ses@ame@h:1"]) == ("--prefill-url", "http://<redacted>@h:1")
