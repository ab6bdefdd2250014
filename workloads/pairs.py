"""Ready pairs: workloads that are sent while something is done to the deployment.

The faults are as for ``--fault``. Each is struck once, in the workload's largest phase, and every prompt is asked again
at the end.
"""

from collections.abc import Callable, Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import Workload, Writer, workload
from harness.scenario import Phase, Situation
from workloads.prefixes import hundred_sharing
from workloads.pressure import burst_of_twenty, tier_overflow


def _under(entry: Workload, *faults: str) -> Callable[[Writer], Workload]:
    """Registers a pair of this workload and these faults."""
    wanted = entry.provokes or Situation()
    return workload(
        family="pairs",
        needs=entry.needs,
        home=entry.home,
        provokes=wanted.counters,
        waits=wanted.waits,
        faults=faults,
    )


@_under(burst_of_twenty, "pause:server=decode-0,when=admitted,for=3")
def burst_paused_decode(build: Builder) -> Iterator[Phase]:
    """The burst of eighty requests on small pools; the decode server is stopped for three seconds in it.

    Hunts blocks that prefill gives away although a decode server that is stopped has not read them, and requests that
    are forgotten when it goes on.
    """
    yield from burst_of_twenty.write(build)


@_under(hundred_sharing, "kill:server=prefill-0,ended=10,for=1")
def prefix_killed_prefill(build: Builder) -> Iterator[Phase]:
    """A hundred requests that share a prefix; the prefill server is killed and started again after ten of them.

    Hunts blocks of a prefix that were being computed or read as the server ended, and are found in a cache as if they
    were whole.
    """
    yield from hundred_sharing.write(build)


@_under(tier_overflow, "cancel:share=0.3,moment=transfer")
def tier_left_by_clients(build: Builder) -> Iterator[Phase]:
    """Prompts that overflow the offload tier, asked twice; the second time three of ten clients leave early.

    Hunts loads from the tier, and stores, that a cancelled request leaves half done for the next one to find.
    """
    yield from tier_overflow.write(build)


@workload(
    family="pairs",
    needs=Needs(batch_tokens=512),
    home="small_steps",
    faults=("drain:server=decode-0,ended=2,when=admitted,for=1",),
)
def prefill_drained_decode(build: Builder) -> Iterator[Phase]:
    """Prompts of a dozen engine steps each; the decode server is ended with SIGTERM meanwhile, and started again.

    Hunts requests that hang: their prefill goes on while no decode server takes them, and some are inside a step when
    the signal comes.
    """
    step = build.setting.batch_tokens or 1
    length = min(12 * step, build.setting.max_model_len - 64)
    yield Phase("long", tuple(build.ask(length + n % 7 - 7, max_tokens=32) for n in range(24)), concurrency=8)
    yield together("after", [build.ask(step + n) for n in range(4)])
