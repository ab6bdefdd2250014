"""How long a server keeps blocks for others follows from what it reports, or is not known."""

from typing import Any

import pytest

from harness.observe.lease import lease_of

OLD = {"VLLM_NIXL_ABORT_REQUEST_TIMEOUT": 480}
NEW = {"VLLM_NIXL_SIDE_CHANNEL_PORT": 5600}


@pytest.mark.parametrize(
    ("environment", "nixl", "lease"),
    [
        pytest.param(NEW, {"kv_lease_duration": 90}, 90, id="given"),
        pytest.param(None, {"kv_lease_duration": 90}, 90, id="given, by a server that reports no variables"),
        pytest.param(NEW, {}, 30, id="the default"),
        pytest.param(OLD, {}, 480, id="a release before leases"),
        pytest.param({"VLLM_NIXL_ABORT_REQUEST_TIMEOUT": "120"}, {}, 120, id="as text"),
        pytest.param(OLD, {"kv_lease_duration": 30}, 480, id="both"),
        pytest.param(None, {}, None, id="of any release"),
        pytest.param(NEW, None, None, id="the connectors are not listed"),
        pytest.param(NEW, {"kv_lease_duration": "soon"}, 30, id="no number"),
        pytest.param(NEW, {"kv_lease_duration": "inf"}, 30, id="no end"),
    ],
)
def test_the_lease(environment: dict[str, Any] | None, nixl: dict[str, Any] | None, lease: float | None) -> None:
    assert lease_of({"vllm_env": environment}, nixl) == lease
