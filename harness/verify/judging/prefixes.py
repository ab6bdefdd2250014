"""Hashes of the prefixes of a load's prompts, by which the blocks of caches are told apart. Pure.

A load has millions of prefixes, so their hashes are packed, and computed once for drawing probes and for counting.
"""

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.history import Operation, Outcome
from harness.memo import once
from harness.scenario import Route
from harness.verify.judging.hits import prefix_hashes
from harness.verify.judging.load_part import Load

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixHashes:
    """The prefixes of all prompts of a load that were answered through the proxy."""

    counts: Numbers
    """How many each operation of the load has; shape (operations,)."""
    hashes: Numbers
    """Those of the first operation, the shortest first, then those of the next one; shape (prefixes,)."""


@once
def hashes_of_load(load: Load, block_size: int) -> PrefixHashes:
    """The hashes of prefixes of whole blocks."""
    counts, hashes = array("q"), array("q")
    for operation in load:
        before = len(hashes)
        if _served(operation):
            hashes.extend(prefix_hashes(operation, block_size))
        counts.append(len(hashes) - before)
    return PrefixHashes(np.array(counts, np.int64), np.array(hashes, np.int64))


def _served(operation: Operation) -> bool:
    return operation.outcome is Outcome.OK and operation.request.route is Route.PROXY
