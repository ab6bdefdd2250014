"""A finding as one line, with all that is known of where it is wrong."""

from collections.abc import Iterator

from harness.redact import redact_text
from harness.reports.text import clean
from harness.verdict import Finding


def finding_line(finding: Finding) -> str:
    """``load-7: its text [server decode-0, first wrong token 3, first wrong KV block 2, KV of load-4]``."""
    places = ", ".join(_places(finding))
    return clean(redact_text(f"{finding.subject}: {finding.text}{f' [{places}]' if places else ''}"), None)


def _places(finding: Finding) -> Iterator[str]:
    if finding.request not in (None, finding.subject):
        yield f"request {finding.request}"
    if finding.server not in (None, finding.subject):
        yield f"server {finding.server}"
    if finding.token is not None:
        yield f"first wrong token {finding.token}"
    if finding.block is not None:
        yield f"first wrong KV block {finding.block}"
    if finding.owner is not None:
        yield f"KV of {finding.owner}"
