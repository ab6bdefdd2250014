"""The proxy's shares of the time, as the client reads them."""

import pytest

from harness.load.answers.timing_header import shares_of


def test_milliseconds_become_seconds() -> None:
    assert shares_of("proxy=0.214, prefill=31.502") == (pytest.approx(0.000214), pytest.approx(0.031502))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "proxy=1, prefill=2",
        "prefill=31.502, proxy=0.214",
        "proxy=-1.000, prefill=2.000",
        "proxy=nan, prefill=2.000",
        "proxy=1.000, prefill=2.000, decode=3.000",
        "proxy=1.000, prefill=" + "9" * 40 + ".000",
        "cache;dur=2.4",
    ],
)
def test_another_form_tells_nothing(header: str | None) -> None:
    assert shares_of(header) == (None, None)
