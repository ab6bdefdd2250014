"""The connectors' configuration of launched servers."""

from pathlib import Path

from harness.deploy.engine import EngineBuild
from harness.deploy.plan import Engine, kv_transfer_config
from harness.deploy.target import Target
from harness.facts import Connector


def engine() -> Engine:
    return Engine(EngineBuild("python", "0.32.0", "cpu"), Path("plugins"))


def test_the_nixl_connector_alone_gets_the_users_configuration() -> None:
    target = Target(connectors=(Connector.NIXL,), nixl_config={"kv_lease_duration": 5})
    config = kv_transfer_config(target, engine())
    assert config["kv_connector"] == "NixlConnector"
    assert config["kv_connector_extra_config"] == {"kv_lease_duration": 5}


def test_each_connector_in_multi_connector_has_its_own_configuration_in_the_given_order() -> None:
    connectors = (Connector.OFFLOADING, Connector.NIXL)
    target = Target(connectors=connectors, offload_bytes=1, nixl_config={"backends": ["UCX"]})
    offloading, nixl = kv_transfer_config(target, engine())["kv_connector_extra_config"]["connectors"]
    assert offloading["kv_connector_extra_config"]["cpu_bytes_to_use"] == 1
    assert nixl["kv_connector_extra_config"] == {"backends": ["UCX"]}


def test_the_policy_for_failed_loads_stands_beside_the_connectors_where_the_scheduler_reads_it() -> None:
    for connectors in ((Connector.NIXL,), (Connector.NIXL, Connector.OFFLOADING)):
        target = Target(connectors=connectors, kv_load_failure_policy="recompute")
        assert kv_transfer_config(target, engine())["kv_load_failure_policy"] == "recompute"
        assert "kv_load_failure_policy" not in kv_transfer_config(Target(connectors=connectors), engine())
