"""A real pair whose decode server damages KV on a test's orders, and lists the damage in a ledger for the test."""

from collections.abc import Sequence
from dataclasses import dataclass

from command_line import Ran, Served, run_harness

from bench.sabotage import Blow, Saboteur


@dataclass(frozen=True)
class Damaged:
    """One run of the harness, and the damage during this run."""

    ran: Ran
    blows: tuple[Blow, ...]

    def of(self, *kinds: str) -> tuple[Blow, ...]:
        """The damage of some kinds."""
        return tuple(blow for blow in self.blows if blow.kind in kinds)


def run_damaged(
    saboteur: Saboteur, served: Served, kinds: Sequence[str], *, one_in: int, seed: int, prompts: int
) -> Damaged:
    """One run at concurrency 32 in which one request of ``one_in`` is damaged; the kinds take turns."""
    load = ["--num-prompts", str(prompts), "--concurrency", "32", "--verify", "all", "--seed", str(seed)]
    with saboteur.striking(kinds, one_in=one_in, seed=seed):
        ran = run_harness(saboteur.directory / f"seed-{seed}", *load, *served.attach())
    return Damaged(ran, saboteur.blows())
