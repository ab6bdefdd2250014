"""One real pair, launched once, for all live tests: ``python -m harness serve``, as a user would."""

from collections.abc import Iterator

import pytest
from command_line import Served, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The shared pair; ended, with everything it started, when the session ends."""
    with serving(tmp_path_factory.mktemp("serve")) as facts:
        yield facts
