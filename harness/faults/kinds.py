"""The table of all kinds of faults."""

from harness.faults.cancel import Cancel
from harness.faults.fault import Fault
from harness.faults.pause import Pause

_ALL: tuple[type[Fault], ...] = (Pause, Cancel)
KINDS: dict[str, type[Fault]] = {kind.kind: kind for kind in _ALL}
