"""The flags that say from where the load is sent."""

from harness.cli.options import parse
from harness.fleet import Workers


def test_flags() -> None:
    assert parse([]).workers == Workers(None, None)
    assert not parse(["--workers", "1"]).workers.needed
    assert parse(["--workers", "2"]).workers.needed
    assert parse(["--ray", "auto"]).workers == Workers(None, "auto")
    assert parse(["--ray", "auto"]).workers.needed
