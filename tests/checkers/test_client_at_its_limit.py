"""A client that is at its limit, or near it."""

import pytest
import run_fixtures as run

from harness.checkers.client_health import client_health
from harness.history import ClientHealth, History
from harness.verdict import Check, Verdict


def judged(cpu: float = 0.2, open_files: int | None = 40, limit: int | None = 1024) -> Check:
    health = ClientHealth(9.0, 0.01, 0.01, 0.001, cpu, open_files=open_files, file_limit=limit)
    return client_health(run.DEPLOYMENT, History((health,)))


@pytest.mark.parametrize(("cpu", "notes"), [(0.6, 0), (0.61, 1), (0.9, 1)])
def test_a_client_near_its_limit_says_so_and_counts(cpu: float, notes: int) -> None:
    check = judged(cpu)
    assert (check.verdict, len(check.notes)) == (Verdict.VALID, notes)


def test_a_client_at_its_limit_is_unknown() -> None:
    check = judged(0.91)
    assert (check.verdict, check.notes) == (Verdict.UNKNOWN, ())


def test_a_client_without_sockets_left_is_unknown() -> None:
    check = judged(open_files=1020)
    assert check.verdict is Verdict.UNKNOWN
    assert "1,020 files and sockets open of 1,024" in check.findings[0].text


@pytest.mark.parametrize(("open_files", "limit"), [(1016, 1024), (None, 1024), (5000, None)])
def test_sockets_left_or_not_known_are_no_finding(open_files: int | None, limit: int | None) -> None:
    assert judged(open_files=open_files, limit=limit).verdict is Verdict.VALID
