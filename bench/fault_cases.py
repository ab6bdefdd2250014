"""The cases of ``python -m bench.faults``: what is done to which deployment, and what the engine is known to get wrong.

Cases of one kind are a group. Groups with the same deployment share a pair, which is started once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.catalogue.presets import PRESETS, Preset
from harness.errors import UsageError
from harness.faults import USUAL, parse_fault, relays_for
from harness.faults.link import SIDE_CHANNEL
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What the engine gets wrong, and how anybody can see it."""

    what: str
    reproducer: str
    """A command, or a script of at most three requests."""
    checks: frozenset[str] = frozenset()
    """The checks that it makes invalid, for a case of faults; a workload's known fault says more exactly what it is."""
    hangs: bool = False
    """Whether it leaves requests hanging: without any, the checks are invalid for another reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Faults beside a load, a workload of the catalogue, or a load alone."""

    faults: tuple[str, ...] = ()
    """As for ``--fault``."""
    workload: str = ""
    on: str = ""
    """What is unusual about the deployment, in words."""
    verify: str = ""
    """Which outputs are verified, as for ``--verify``; empty: as for all cases."""
    tries: int = 1
    """How often it is run, at most, while the verdict is unknown: some moments cannot be hit surely."""
    shortfall: Shortfall | None = None
    meant: str = ""
    """Why the run must not be valid although the engine does nothing wrong; empty: it may be."""
    must_be: Verdict = Verdict.INVALID
    """With ``meant``: the verdict that is right."""

    @property
    def text(self) -> str:
        """What is done, as the flags of the harness say it."""
        done = f"`{' '.join(self.faults)}`" if self.faults else f"`--workload {self.workload}`" if self.workload else ""
        return ", ".join(filter(None, (done, self.on)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cases of one kind, on one deployment."""

    name: str
    summary: str
    cases: tuple[Case, ...]
    preset: Preset = PRESETS["multi"]
    policy: str = "fail"
    """vLLM's ``kv_load_failure_policy``; ``fail`` is its own choice, too."""
    cold: bool = False
    """Whether its pair is not warmed up: the first handshake is made by the first case."""

    @property
    def relays(self) -> tuple[str, ...]:
        """The relays that its faults need. A pair with a relay before the side channel is not warmed up."""
        needed = relays_for(parse_fault(fault) for case in self.cases for fault in case.faults)
        return tuple(dict.fromkeys((*([SIDE_CHANNEL] if self.cold else []), *needed)))


@dataclass(frozen=True, slots=True)
class Pair:
    """A deployment that is launched, and the cases that run on it, in order; each with its group's name."""

    preset: Preset
    policy: str
    relays: tuple[str, ...] = ()
    cases: tuple[tuple[str, Case], ...] = ()

    def joined(self, group: Group) -> "Pair":
        """The pair with a group's cases, too."""
        relays = tuple(dict.fromkeys((*self.relays, *group.relays)))
        return replace(self, relays=relays, cases=(*self.cases, *((group.name, case) for case in group.cases)))


def pairs(groups: Iterable[Group]) -> list[Pair]:
    """The pairs to launch, one after another, for these groups."""
    found: dict[tuple[str, str, bool], Pair] = {}
    for group in groups:
        key = group.preset.name, group.policy, group.cold
        found[key] = found.get(key, Pair(group.preset, group.policy)).joined(group)
    return list(found.values())


def chosen(names: Iterable[str]) -> list[Group]:
    """The groups with these names; all without any. Raises UsageError if there is no such group."""
    wanted = list(names)
    if unknown := [name for name in wanted if name not in GROUPS]:
        raise UsageError(f"--group {unknown[0]}: there is no such group; there are {', '.join(GROUPS)}.")
    return [GROUPS[name] for name in wanted] or list(GROUPS.values())


_PAIR = Preset(
    name="usual_pair",
    summary="the default pair, with leases of ten seconds: what a fault leaves behind is seen sooner",
    nixl_config={"kv_lease_duration": 10},
)
_UNLIKE_PEERS = Preset(
    name="unlike_peers",
    summary="decode refuses prefill's handshake, as it does with another version's: NIXL's compatibility hash differs",
    nixl_config={"kv_lease_duration": 10},
    # The hash covers versions, model, types, attention, and whether KV caches may be hybrid. The last can be chosen.
    decode_args=("--disable-hybrid-kv-cache-manager",),
)
_FAILED_LOAD = (
    "pause:server=decode-0,part=engine,after=1,for=3",
    "kill:server=prefill-0,after=2,for=3,provokes=nixl_failed_transfers",
)
"""Requests wait on decode, whose engine is stopped, until the prefill server that has their KV is gone."""
_RESTART = "kill:server=prefill-0,ended=5,for=1"
_HANDSHAKES = ("how=cut", "how=half-open", "how=delay")
_LEASE_OPTIONS = "--nixl-config '{\"kv_lease_duration\": 3}' --num-gpu-blocks 128 --engine-arg '--max-model-len 1024'"
_LEASE = Shortfall(
    "blocks whose lease has ended while a request waited in the decode server are read although others own them: "
    "status 200, a wrong answer",
    f"`python -m harness --fault lease:server=decode-0 {_LEASE_OPTIONS}`",
    frozenset({"outputs"}),
)
_SCRIPT = "`examples/bad_references.sh PREFILL_URL DECODE_URL MODEL {}`"
_REFERENCES: Mapping[str, Shortfall] = {
    "used_after_reuse": Shortfall(
        "a reference that is used again when its blocks hold another prompt: status 200, a wrong answer",
        "`python -m harness --workload used_after_reuse`",
    ),
    "kept_past_lease": Shortfall(
        "a reference that is kept past its lease, until its blocks hold another prompt: status 200, a wrong answer",
        "`python -m harness --workload kept_past_lease`",
    ),
    "other_blocks": Shortfall(
        "a reference with its blocks in another order, or with one too many: status 200, a wrong answer",
        _SCRIPT.format("reordered"),
    ),
    "nameless_reference": Shortfall(
        "a reference without the name of its request: no end, and when the client leaves, the engine ends",
        _SCRIPT.format("nameless"),
    ),
    "truncated_reference": Shortfall(
        "a reference without its last block: the engine ends", _SCRIPT.format("truncated")
    ),
    "empty_reference": Shortfall("a reference without any block: the engine ends", _SCRIPT.format("empty")),
}
_WORKLOADS = (
    *("given_reference", "unknown_names", "malformed_references", "used_again", "used_after_reuse", "kept_past_lease"),
    *("other_blocks", "nameless_reference", "truncated_reference", "empty_reference"),
)


_SIGTERM = Shortfall(
    "a server that is asked to end (SIGTERM) may leave requests in flight without a token, an error or an end until "
    "it is killed: its engine is gone, and its HTTP server waits for their answers",
    "`examples/sigterm.sh URL MODEL PID`",
    frozenset({"faults"}),
    hangs=True,
)
_UNTOLD = "such a page does not tell what was counted"


def _faults(*texts: str) -> tuple[Case, ...]:
    return tuple(
        Case(faults=(text,), shortfall=_of_engine(text), meant=_as_must_be(text), must_be=Verdict.UNKNOWN)
        for text in texts
    )


def _of_engine(fault: str) -> Shortfall | None:
    drained = fault.startswith("drain:") and "proxy" not in fault
    return _SIGTERM if drained else None


def _as_must_be(fault: str) -> str:
    return _UNTOLD if fault.endswith(("how=nan", "how=restarted")) else ""


def _pressed(name: str, preset: str, *workloads: str) -> Group:
    summary = f"{PRESETS[preset].summary}"
    cases = tuple(Case(workload=workload, on=f"on the deployment {preset}") for workload in workloads)
    return Group(name=name, summary=summary, cases=cases, preset=PRESETS[preset])


_ALL = (
    Group(name="usual", summary="each kind in its usual forms", cases=_faults(*USUAL), preset=_PAIR),
    Group(
        name="more",
        summary="the other servers drained, and a fault at the moment of a transfer",
        cases=_faults(
            "drain:server=prefill-0,for=1", "drain:server=proxy,for=1", "pause:server=decode-0,when=transferring,for=2"
        ),
        preset=_PAIR,
    ),
    Group(
        name="metrics",
        summary="readings of /metrics spoiled in the other ways",
        cases=_faults(*(f"metrics:server=decode-0,how={how}" for how in ("slow", "cut", "short", "nan", "restarted"))),
        preset=_PAIR,
    ),
    Group(
        name="failed-loads",
        summary="transfers that fail, under kv_load_failure_policy fail",
        cases=(Case(faults=_FAILED_LOAD, on="policy fail", tries=3),),
        preset=_PAIR,
    ),
    Group(
        name="recomputed-loads",
        summary="transfers that fail, under kv_load_failure_policy recompute",
        cases=(Case(faults=_FAILED_LOAD, on="policy recompute", tries=3),),
        preset=_PAIR,
        policy="recompute",
    ),
    Group(
        name="peer-refused",
        summary="decode refuses prefill as a peer, under kv_load_failure_policy fail",
        cases=(Case(on="a peer that refuses the handshake, policy fail", meant="no request of it can be served"),),
        preset=_UNLIKE_PEERS,
        cold=True,
    ),
    Group(
        name="peer-recomputed",
        summary="decode refuses prefill as a peer, under kv_load_failure_policy recompute",
        cases=(Case(on="a peer that refuses the handshake, policy recompute", meant="no KV was transferred"),),
        preset=_UNLIKE_PEERS,
        policy="recompute",
        cold=True,
    ),
    Group(
        name="handshakes",
        summary="prefill killed and started again on its port, and the handshake anew over a disturbed side channel",
        cases=tuple(Case(faults=(_RESTART, f"link:link=side-channel,{how},ended=5,for=2")) for how in _HANDSHAKES),
        preset=_PAIR,
        cold=True,
    ),
    Group(
        name="leases",
        summary="leases that end before decode reads, and notifications that come afterwards",
        cases=(
            Case(faults=("lease:server=decode-0",), on="leases of 3 s", verify="sample:60", shortfall=_LEASE),
            Case(workload="queue_past_lease", on="leases of 3 s"),
        ),
        preset=PRESETS["short_lease"],
    ),
    _pressed("pools", "small_pool", "burst_of_twenty", "preemption", "pool_churn"),
    _pressed("tiers", "small_tier", "tier_overflow"),
    Group(
        name="parameters",
        summary="references to KV that no proxy would hand over, straight to decode",
        cases=tuple(Case(workload=name, shortfall=_REFERENCES.get(name)) for name in _WORKLOADS),
        preset=PRESETS["reused_blocks"],
    ),
)
GROUPS: dict[str, Group] = {group.name: group for group in _ALL}
