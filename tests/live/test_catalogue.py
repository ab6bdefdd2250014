"""The catalogue on the shared real pair, through the pytest plugin as a user has it."""

from collections.abc import Callable, Iterator

import pytest
from command_line import Served

from harness.catalogue.choice import catalogue
from harness.catalogue.registry import Workload
from harness.pytest_plugin.held import HeldDeployment, holding

pytestmark = pytest.mark.live

ENTRIES = [entry for entry in catalogue() if entry.home == "multi"]


@pytest.fixture(scope="module")
def deployment(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldDeployment]:
    """In place of the plugin's own: the pair that all live tests share."""
    with holding(served.attach(), tmp_path_factory.mktemp("catalogue")) as held:
        yield held


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_is_valid(entry: Workload, run_workload: Callable[[Workload], object]) -> None:
    run_workload(entry)
