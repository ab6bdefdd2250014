"""The connectors' configuration of launched servers."""

from pathlib import Path

from harness.deploy.engine import EngineBuild
from harness.deploy.plan import Engine, LaunchOptions, kv_transfer_config
from harness.facts import Connector


def engine() -> Engine:
    return Engine(EngineBuild("python", "0.32.0", "cpu"), Path("plugins"))


def test_the_nixl_connector_alone_gets_the_users_configuration() -> None:
    options = LaunchOptions("model", connectors=(Connector.NIXL,), nixl_config={"kv_lease_duration": 5})
    config = kv_transfer_config(options, engine())
    assert config["kv_connector"] == "NixlConnector"
    assert config["kv_connector_extra_config"] == {"kv_lease_duration": 5}


def test_each_connector_in_multi_connector_has_its_own_configuration_in_the_given_order() -> None:
    connectors = (Connector.OFFLOADING, Connector.NIXL)
    options = LaunchOptions("model", connectors=connectors, offload_bytes=1, nixl_config={"backends": ["UCX"]})
    offloading, nixl = kv_transfer_config(options, engine())["kv_connector_extra_config"]["connectors"]
    assert offloading["kv_connector_extra_config"]["cpu_bytes_to_use"] == 1
    assert nixl["kv_connector_extra_config"] == {"backends": ["UCX"]}
