"""KV damaged in a real decode server, after a sound transfer: does the harness find it, as a black box?

One pair serves all of it: a plugin in its decode server (bench/damage_plugin) reads its orders again at each transfer.
What it did is in a ledger, which the harness does not see; a request is *named* if a finding of the outputs check is
about it, or about a probe of its blocks in the caches.

Two kinds are special, and no checker's failure: the lowest bit of a mantissa is far below what another order of
addition changes, and nobody can see it; and two whole blocks that change places leave their own request right, because
keys are rotated before they are cached, and poison the cache for the next request that finds one of them.

Not part of an ordinary test run: it has a pair of its own, and another would share the machine with it. Run it with
``pytest -m damage``.
"""

import re
from collections.abc import Iterator

import pytest
from command_line import Ran, Served, serving
from damaged_pair import Damaged, run_damaged

from bench.sabotage import Saboteur

pytestmark = [pytest.mark.live, pytest.mark.damage]

SEEN_AT_ONCE = (
    *("flip_byte", "swap_tail", "zero_last", "unwritten", "stale", "foreign"),
    *("foreign_prompt", "layer", "shift", "scale", "scale_keys", "noise"),
)
POISON, INVISIBLE = "swap", "flip_lowest_bit"
KINDS = (*SEEN_AT_ONCE, POISON, INVISIBLE)
ONE_IN = 50
PROMPTS = ONE_IN * len(KINDS)


@pytest.fixture(scope="module")
def saboteur(tmp_path_factory: pytest.TempPathFactory) -> Saboteur:
    return Saboteur(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def pair(saboteur: Saboteur) -> Iterator[Served]:
    with serving(saboteur.directory, saboteur.environment) as served:
        yield served


@pytest.fixture(scope="module")
def damaged(saboteur: Saboteur, pair: Served) -> Damaged:
    """One run in which each kind strikes once."""
    return run_damaged(saboteur, pair, KINDS, one_in=ONE_IN, seed=401, prompts=PROMPTS)


def told(ran: Ran) -> dict[str, str]:
    """What the outputs check says, by the request that it is about."""
    [check] = [check for check in ran.result["checks"] if check["name"] == "outputs"]
    return {re.sub("-probe.*", "", finding["subject"]): finding["text"] for finding in check["findings"]}


def test_the_run_is_invalid_and_only_its_outputs_tell(damaged: Damaged) -> None:
    assert damaged.ran.status == 1, damaged.ran.output + damaged.ran.errors
    verdicts = {check["name"]: check["verdict"] for check in damaged.ran.result["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict != "valid"} == {"outputs"}


@pytest.mark.parametrize("kind", SEEN_AT_ONCE)
def test_a_damaged_request_is_named(damaged: Damaged, kind: str) -> None:
    blows = damaged.of(kind)
    assert blows, f"nothing was damaged so, and nothing can be found: {damaged.ran.output}{damaged.ran.errors}"
    assert {blow.request for blow in blows} <= told(damaged.ran).keys(), blows


def test_nobody_else_is_named(damaged: Damaged) -> None:
    assert told(damaged.ran).keys() <= {blow.request for blow in damaged.of(*SEEN_AT_ONCE, POISON)}


def test_foreign_kv_is_named_with_its_owner(damaged: Damaged) -> None:
    [blow] = damaged.of("foreign_prompt")
    assert f"was answered with {blow.owner}'s KV" in told(damaged.ran)[blow.request]


def test_blocks_that_changed_places_are_found_in_the_cache(saboteur: Saboteur, pair: Served) -> None:
    """Alone, so that every answer is right: the caches must be asked."""
    done = run_damaged(saboteur, pair, [POISON], one_in=ONE_IN, seed=403, prompts=3 * ONE_IN)
    assert len(done.blows) == 3
    assert done.ran.result["verdict"] == "invalid", done.ran.output
    assert told(done.ran).keys() == {blow.request for blow in done.blows}


def test_the_lowest_bit_of_a_mantissa_is_invisible(saboteur: Saboteur, pair: Served) -> None:
    done = run_damaged(saboteur, pair, [INVISIBLE], one_in=ONE_IN, seed=404, prompts=3 * ONE_IN)
    assert len(done.blows) == 3
    assert done.ran.result["verdict"] == "valid", done.ran.output
