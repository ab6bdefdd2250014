"""A wrong server address is refused before anything is sent, and the message shows no credentials."""

import pytest

from harness.cli.options import parse
from harness.deploy.addresses import address
from harness.errors import UsageError

P, D = "http://p:8100", "http://d:8200"


def attached(*more: str) -> list[str]:
    return ["run", "--prefill-url", P, "--decode-url", D, *more]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "localhost:8000", "ftp://h:1", "http://", "http:///v1", "http://:8000", "http://[::1", "//h:1"),
        *("http://h:0", "http://h:port", "http://h:99999", "http://exa mple:1", "http://h:1\n"),
        "http://user:s3 cret@h:1",
    ],
)
@pytest.mark.parametrize("flag", ["--base-url", "--reference-url", "--prefill-url"])
def test_a_wrong_address_is_refused_at_once(text: str, flag: str) -> None:
    """An empty address is wrong, too: it is an unset shell variable."""
    with pytest.raises(UsageError) as refused:
        parse(attached(flag, text))
    assert flag in str(refused.value)
    assert "http://127.0.0.1:8000" in str(refused.value)
    assert "cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("http://h:1/", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("http://h:1//v1", "http://h:1"),
        ("http://h:1/tenant/a/", "http://h:1/tenant/a"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("HTTP://h", "HTTP://h"),
        ("https://user:secret@h:1", "https://user:secret@h:1"),
    ],
)
def test_a_slash_and_an_api_version_are_removed_from_the_end_of_an_address(text: str, taken: str) -> None:
    assert address(text, "--base-url") == taken


def test_a_user_in_the_address_and_a_header_are_two_credentials() -> None:
    """A request can carry only one of them."""
    with pytest.raises(UsageError, match="Leave one out") as refused:
        parse(attached("--base-url", "http://me:secret@h:1", "--header", "authorization=Bearer other"))
    assert "secret" not in str(refused.value)
    assert "other" not in str(refused.value)
    assert parse(attached("--base-url", "http://me:secret@h:1", "--header", "X-Tenant=a")).target.attachment


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of a process can be seen by every user of the machine."""
    monkeypatch.setenv("API_KEY", "s3cret")
    target = parse(attached("--header", "Authorization=Bearer ${API_KEY}", "--header", "X-Price=$5")).target
    assert target.headers == {"Authorization": "Bearer s3cret", "X-Price": "$5"}
    monkeypatch.delenv("API_KEY")
    with pytest.raises(
        UsageError, match="the environment variable API_KEY is not set, which the header Authorization names"
    ):
        parse(attached("--header", "Authorization=Bearer ${API_KEY}"))
