"""The table of all kinds of faults."""

from harness.faults.drain import Drain
from harness.faults.fault import Fault
from harness.faults.kill import Kill
from harness.faults.pause import Pause

_ALL: tuple[type[Fault], ...] = (Pause, Kill, Drain)
KINDS: dict[str, type[Fault]] = {kind.kind: kind for kind in _ALL}
