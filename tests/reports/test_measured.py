"""What is measured: the load, without the reads that follow faults."""

from dataclasses import replace

import counted_run as run

from harness.history import History, Sent
from harness.reports.measured import under_test


def test_reads_after_faults_are_not_measured() -> None:
    whole = run.history()
    measured = under_test(whole)
    read = measured[0].request.request_id

    def again(sent: Sent) -> Sent:
        return replace(sent, request=replace(sent.request, about="load-1"))

    entries = (again(one) if isinstance(one, Sent) and one.request.request_id == read else one for one in whole.entries)
    left = under_test(History(tuple(entries)))
    assert [one.request.request_id for one in left] == [one.request.request_id for one in measured[1:]]
