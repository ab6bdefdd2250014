"""A workload whose needs a deployment does not meet is skipped, for a reason in the deployment's own figures."""

import pytest
from workload_settings import deployment, server

from harness.catalogue.needs import Needs, unmet
from harness.facts import Connector, Deployment, Role

NIXL, OFFLOADING = Connector.NIXL, Connector.OFFLOADING


def with_decode(**changes: object) -> Deployment:
    return deployment(servers=(server(Role.PREFILL), server(Role.DECODE, **changes)))


UNMET = [
    (Needs(), deployment(connectors=(OFFLOADING,)), "it needs KV transfer, and the deployment has [offloading]"),
    (Needs(), deployment(connectors=()), "it needs KV transfer, and the deployment has [no connector]"),
    (Needs(offloads=True), deployment(connectors=(NIXL,)), "needs an offload tier, and the deployment has [nixl]"),
    (
        Needs(connectors=(OFFLOADING, NIXL)),
        deployment(),
        "needs the connectors [offloading, nixl], and the deployment has [nixl, offloading]",
    ),
    (Needs(decode=2), deployment(), "needs 2 decode servers, and there are 1"),
    (Needs(prefix_caching=True), with_decode(prefix_caching=False), "needs prefix caching on, and decode-0 has it off"),
    (Needs(prefix_caching=False), deployment(), "needs prefix caching off, and prefill-0 has it on"),
    (Needs(same_block_sizes=False), deployment(), "needs different block sizes, and the servers have 32"),
    (Needs(same_block_sizes=True), with_decode(block_size=64), "equal block sizes, and the servers have 32, 64"),
    (Needs(same_versions=False), deployment(), "needs different engine versions, and the servers have 0.32.0"),
    (Needs(most_blocks=128), deployment(), "fills a pool of up to 128 blocks, and prefill-0 has 1,024"),
    (Needs(most_blocks=2000), with_decode(num_blocks=None), "decode-0 has a number that the server does not report"),
    (Needs(most_context=4096), deployment(), "fills a context of up to 4,096 tokens, and prefill-0 has 8,192"),
    (Needs(batch_tokens=512), deployment(), "prefilled in chunks, and prefill-0 has 2,048"),
]


@pytest.mark.parametrize(("needs", "facts", "why"), UNMET, ids=[why for _, _, why in UNMET])
def test_an_unmet_need_is_reported_with_the_deployments_own_figures(needs: Needs, facts: Deployment, why: str) -> None:
    assert why in (unmet(needs, facts) or "")


@pytest.mark.parametrize(
    ("needs", "facts"),
    [
        (Needs(), deployment()),
        (Needs(transfers=False), deployment(connectors=(OFFLOADING,))),
        (Needs(offloads=True, connectors=(NIXL, OFFLOADING), prefix_caching=True), deployment()),
        (Needs(same_block_sizes=False), with_decode(block_size=64)),
        (Needs(most_blocks=1024, batch_tokens=2048), deployment()),
    ],
)
def test_a_deployment_that_meets_all_needs_is_accepted(needs: Needs, facts: Deployment) -> None:
    assert unmet(needs, facts) is None


@pytest.mark.parametrize(
    ("needs", "facts"),
    [
        (Needs(offloads=True), deployment(connectors=None)),
        (Needs(prefix_caching=True), with_decode(prefix_caching=None)),
        (Needs(same_versions=False), with_decode(version=None)),
    ],
)
def test_an_unknown_fact_counts_as_a_met_need(needs: Needs, facts: Deployment) -> None:
    assert unmet(needs, facts) is None
