"""The evidence that advice is derived from: one check, the other checks of the run, its history and its deployment."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.facts import Deployment, Role
from harness.history import History, Operation
from harness.verdict import Advice, Check, Comparison, FindingKind, Verdict

ENDED_EARLY = Advice("the run ended early: it was interrupted or killed, or an error stopped it", "run again")
_NOTHING = Check("", Verdict.UNKNOWN, "")


@dataclass(frozen=True, slots=True)
class Context:
    """One check of a run, with the evidence around it."""

    deployment: Deployment
    history: History
    checks: tuple[Check, ...]
    """All checks of the run, or of the part of the run that is judged."""
    asked: frozenset[str] | None = None
    """Request ids of the judged part; None: all of the run."""
    check: Check = _NOTHING
    """The check that needs advice."""

    @property
    def invalid(self) -> bool:
        """Whether the check is invalid; otherwise it is unknown."""
        return self.check.verdict is Verdict.INVALID

    def problems(self) -> tuple[Comparison, ...]:
        """The check's comparisons with the same verdict as the check."""
        return tuple(one for one in self.check.comparisons if one.verdict is self.check.verdict)

    def other(self, name: str) -> Check | None:
        """Another check of the run."""
        return next((check for check in self.checks if check.name == name), None)

    def is_bad(self, name: str) -> bool:
        """Whether another check is invalid."""
        other = self.other(name)
        return other is not None and other.verdict is Verdict.INVALID

    def load(self) -> Iterator[Operation]:
        """Operations of the load that is judged."""
        for operation in self.history.operations():
            if operation.request.of_load and (self.asked is None or operation.request.request_id in self.asked):
                yield operation

    def requests(self, kind: FindingKind) -> frozenset[str]:
        """Request ids that the check's findings of this kind are about."""
        return frozenset(one.request for one in self.check.findings if one.kind is kind and one.request is not None)

    def common_server(self, operations: list[Operation]) -> str:
        """The server that all of these operations used, in words; empty if there is no such server, or no other one."""
        for role, attribute in ((Role.DECODE, "decode_server"), (Role.PREFILL, "prefill_server")):
            if len(self.deployment.of(role)) < 2 or not operations:
                continue
            counted = Counter(getattr(operation.ended, attribute) for operation in operations)
            url, most = counted.most_common(1)[0]
            if url and most == len(operations) > 1:
                return f", all of them on the {role} server {url}"
        return ""


def plural(count: int, noun: str) -> str:
    """``1 request``, ``2,000 requests``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
