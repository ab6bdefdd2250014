"""How long a deployment may take to serve requests again after a fault.

A fault may leave prefill's blocks to their lease. If they are all that it has, it serves nothing until the lease ends.
"""

from harness.facts import Deployment, Role

BEYOND_LEASE_S = 30.0
"""Seconds that a deployment has besides its longest lease."""
_USUAL_S = 30.0
"""NIXL's lease if none is given (``kv_lease_duration``)."""
_UNKNOWN_S = 480.0
"""The longest lease that a release has if none is given (``VLLM_NIXL_ABORT_REQUEST_TIMEOUT`` of earlier ones)."""


def recovery_s(deployment: Deployment) -> float:
    """Seconds from the healing of a fault; at least 60, as with the lease that NIXL has if none is given."""
    leases = [one.lease_of_blocks for one in deployment.of(Role.PREFILL)]
    return BEYOND_LEASE_S + max((_USUAL_S, *(_UNKNOWN_S if one is None else one for one in leases)))
