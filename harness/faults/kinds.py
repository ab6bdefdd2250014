"""The table of all kinds of faults."""

from harness.faults.cancel import Cancel
from harness.faults.drain import Drain
from harness.faults.fault import Fault
from harness.faults.kill import Kill
from harness.faults.lease import Lease
from harness.faults.link import Link
from harness.faults.metrics import Metrics
from harness.faults.pause import Pause

_ALL: tuple[type[Fault], ...] = (Pause, Lease, Kill, Drain, Link, Metrics, Cancel)
KINDS: dict[str, type[Fault]] = {kind.kind: kind for kind in _ALL}

USUAL: tuple[str, ...] = (
    "pause:server=decode-0",
    "pause:server=prefill-0",
    "pause:server=proxy",
    "kill:server=prefill-0,for=1",
    "kill:server=decode-0,for=1",
    "kill:server=proxy,for=1",
    "drain:server=decode-0,for=1",
    "link:link=prefill-0,how=delay",
    "link:link=decode-0,how=throttle",
    "link:link=decode-0,how=cut",
    "link:link=prefill-0,how=half-open",
    "link:link=prefill-0,how=idle,idle=0.5",
    "metrics:server=decode-0,how=500",
    "cancel:share=0.1,moment=first-token",
    "cancel:share=0.5,moment=transfer",
    "cancel:share=0.5,moment=stream",
)
"""Each kind in the forms in which it is mostly wanted, as for ``--fault``."""
