"""Planning looks at each output a fixed number of times: twice the outputs, twice the looks."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Operation, Outcome, Sent
from harness.scenario import Request, Sampling
from harness.verify.asking import VerifyOptions, VerifyPolicy, verified

DEPLOYMENT = Deployment(
    tuple(Server(f"{role}-0", role, f"http://{role}", block_size=16) for role in Role), "http://proxy", "m"
)


def answered(count: int) -> History:
    entries: list[Entry] = []
    for number in range(count):
        asked = Request(f"r{number}", (number + 10, *range(100, 139)), Sampling(max_tokens=5))
        entries.append(Sent(float(number), asked, "load", "load", 0.0))
        choices = (Choice(tuple(range(5)), finish_reason="length"),)
        entries.append(Ended(number + 0.5, asked.request_id, Outcome.OK, status=200, choices=choices))
    return History(tuple(entries))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the fields of operations were read."""
    counts: Counter[str] = Counter()
    for name in ("request", "outcome", "prompt_token_ids"):
        monkeypatch.setattr(Operation, name, property(_counting(getattr(Operation, name).fget, counts, name)))
    return counts


def _counting(read: Callable[[Any], Any], counts: Counter[str], name: str) -> Callable[[Any], Any]:
    def counted(operation: Operation) -> Any:
        counts[name] += 1
        return read(operation)

    return counted


@pytest.mark.parametrize("policy", ["budget:10%", "budget:60s", "sample:50", "all"])
def test_the_work_of_planning_grows_with_the_outputs_and_no_faster(looks: Counter[str], policy: str) -> None:
    def planned(count: int) -> int:
        history, how = answered(count), VerifyOptions(policy=VerifyPolicy.parse(policy), salt="s", concurrency=8)
        looks.clear()
        for _ in verified([], DEPLOYMENT, lambda: history, how):
            pass
        return looks.total()

    few, many = planned(300), planned(1200)
    assert few > 300
    assert many <= 4.2 * few
