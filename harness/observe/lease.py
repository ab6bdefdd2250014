"""Learns from a server's configuration for how long it keeps a prompt's blocks for decode servers (NIXL's lease).

Rule 1. ``kv_lease_duration`` of the connector's configuration, where it was given.
Rule 2. Else 30 s, which is the default of the releases that have leases.
Rule 3. Releases before them report ``VLLM_NIXL_ABORT_REQUEST_TIMEOUT`` among their environment variables (480 s if it
        was not set), and keep blocks for so long.
Rule 4. A server that reports no environment variables may be of such a release: without ``kv_lease_duration``, the
        lease is not known.
"""

from collections.abc import Mapping
from typing import Any

from harness.observe.forms import mapping

_DEFAULT_S = 30.0
_EARLIER = "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"


def lease_of(info: Mapping[str, Any] | None, nixl: Mapping[str, Any] | None) -> float | None:
    """The lease in seconds; None if it is not known. ``info``: the answer of /server_info; ``nixl``: its NIXL part."""
    environment = mapping((info or {}).get("vllm_env"))
    given = _seconds((nixl or {}).get("kv_lease_duration"))
    earlier = _seconds(environment.get(_EARLIER))
    if nixl is None or (given is None and not environment):
        return None
    # A release with both would free blocks at the later of the two.
    return max(given or 0.0, earlier or 0.0) or _DEFAULT_S


def _seconds(value: object) -> float | None:
    """A number of seconds, as a number or as the text of an environment variable; None if it is neither."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None
