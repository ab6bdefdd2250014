"""Which requests a report names although the planted bug did not affect them. Pure.

To name such a request is the worst fault of a checker. A finding about a request is right if the bug struck the request
or overwrote its blocks, or if the request read wrong KV. A finding of kind ``CACHE`` needs less. It says that a cache
answers a prefix of the request's prompt wrong when the harness asks again (a probe), and not that the request's own
answer is wrong. Since a bug strikes the harness's own requests too, it is right if such a probe read wrong KV.
"""

from collections.abc import Collection, Iterable

from harness.history import History
from harness.scenario import Purpose
from harness.sim import Ledger
from harness.verdict import Finding, FindingKind


def naming(findings: Iterable[Finding], requests: Collection[str]) -> list[Finding]:
    """The findings that say of one of these requests that something is wrong, and not only unknown."""
    return [one for one in findings if one.subject in requests and one.kind is not FindingKind.UNVERIFIED]


def unaffected(findings: Iterable[Finding], history: History, ledger: Ledger) -> set[str]:
    """The ids of the requests about which a finding is false. ``findings`` are those of :func:`naming`."""
    affected = ledger.wrong | ledger.planted | ledger.victims
    misread = {
        one.request.about
        for one in history.operations()
        if one.request.purpose is Purpose.PROBE and one.request.request_id in ledger.wrong
    }
    right = {FindingKind.CACHE: affected | misread}
    return {one.subject for one in findings if one.subject not in right.get(one.kind, affected)}
