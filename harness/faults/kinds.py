"""The table of all kinds of faults."""

from harness.faults.fault import Fault
from harness.faults.link import Link
from harness.faults.metrics import Metrics
from harness.faults.pause import Pause

_ALL: tuple[type[Fault], ...] = (Pause, Link, Metrics)
KINDS: dict[str, type[Fault]] = {kind.kind: kind for kind in _ALL}
