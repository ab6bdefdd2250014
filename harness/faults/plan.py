"""``--fault NAME[:OPTION=VALUE,...]``: which fault, when, and for how long.

Every fault has the options ``after=S`` (seconds from the beginning of the load), ``for=S`` (seconds until it is
undone), ``ended=N`` (requests that must have ended before) and ``when=STATE`` (admitted, transferring, prefilled: see
moments.py).
With ``ended`` or ``when``, ``after`` is 0 unless it is given. Faults with ``alone=target`` or ``alone=all`` take turns
(turns.py), and the load lasts until all of them are over, if it has requests left. ``provokes=COUNTER`` says what must
come of the fault: a run in which the counter did not grow has not tested what it was meant to test, and is unknown.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from harness.errors import UsageError
from harness.faults.fault import Fault, OfLoad
from harness.faults.kinds import KINDS
from harness.faults.moments import Moment, State
from harness.faults.turns import Alone

_AFTER_S = 1.0
_FOR_S = 3.0
_TIMES = ("after", "for", "ended", "when", "alone")
"""Options of every fault that has a moment."""
PROVOKED = (
    *("nixl_failed_transfers", "nixl_expired", "nixl_after_expiry"),
    *("preemptions", "offload_refused", "offload_load_bytes"),
)
"""Counters that ``provokes`` may name, as in ``harness.observe.counters``."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """A fault and its time."""

    fault: Fault
    after: float = _AFTER_S
    """Seconds from the beginning of the load to the fault, or to the first look for the other conditions."""
    seconds: float = _FOR_S
    """Seconds from the moment at which the fault was observed to its healing."""
    ended: int = 0
    """Requests that must have ended before the fault."""
    state: State | None = None
    """The state in which the deployment must be observed before the fault."""
    alone: Alone | None = None
    """What the fault does not share with others that take turns; None: it takes none."""
    provokes: str = ""
    """The counter that must have grown on a server by the end of the load; empty: none must."""
    workload: str = ""
    """The name of the workload that is sent under the fault; empty: the run's load, whatever it is."""

    @property
    def moment(self) -> Moment:
        """When the fault is struck."""
        return Moment(self.after, self.ended, self.state)

    @property
    def text(self) -> str:
        """What the fault does, and when."""
        return ", ".join(filter(None, (self.fault.text, self.moment.text)))

    @property
    def outlasts_load(self) -> bool:
        """Whether the fault stays at work when the load has ended, until other requests are to be sent."""
        return bool(getattr(self.fault, "outlasts_load", False))

    @property
    def relayed(self) -> str | None:
        """The relay of the harness that must stand before a server for the fault; None: it needs none."""
        relayed: str | None = getattr(self.fault, "relayed", None)
        return relayed


def relays_for(plans: Iterable[FaultPlan]) -> tuple[str, ...]:
    """The relays that must stand before servers for these faults, each once."""
    return tuple(dict.fromkeys(plan.relayed for plan in plans if plan.relayed is not None))


def faults_of_workloads(own: Mapping[str, Iterable[str]], given: Iterable[FaultPlan]) -> tuple[FaultPlan, ...]:
    """The faults of a run of workloads: those that each has itself, and those that all are sent under.

    ``own``: texts as for ``--fault``, by the workload's name. ``given``: the faults of all of them. Raises UsageError.
    """
    given = tuple(given)
    return tuple(
        replace(plan, workload=name) for name, texts in own.items() for plan in (*map(parse_fault, texts), *given)
    )


def parse_fault(text: str) -> FaultPlan:
    """The plan that a value of ``--fault`` describes: ``pause:server=decode-0,after=2,for=3``. Raises UsageError."""
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise UsageError(f"--fault {kind}: there is no such fault; there are {', '.join(KINDS)}.")
    options = dict(_option(one, text) for one in rest.split(",") if one)
    provokes = _counter(options.pop("provokes", getattr(KINDS[kind], "provokes", "")))
    if issubclass(KINDS[kind], OfLoad):
        return FaultPlan(_made(kind, options), after=0.0, seconds=0.0, provokes=provokes)
    given = {name: options.pop(name) for name in _TIMES if name in options}
    ended = _number("ended", given["ended"]) if "ended" in given else 0
    state = _state(given["when"]) if "when" in given else None
    after = _seconds("after", given["after"]) if "after" in given else 0.0 if ended or state else _AFTER_S
    seconds = _seconds("for", given["for"]) if "for" in given else _FOR_S
    alone = _alone(given["alone"]) if "alone" in given else None
    return FaultPlan(_made(kind, options), after, seconds, ended, state, alone, provokes)


def _option(one: str, text: str) -> tuple[str, str]:
    name, equals, value = one.partition("=")
    if not (name and equals and value):
        raise UsageError(f"--fault {text}: give options as NAME=VALUE, separated by commas.")
    return name, value


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"--fault …{name}={value}: give a number of seconds.")
    return seconds


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise UsageError(f"--fault …{name}={value}: give a number of requests.")
    return int(value)


def _counter(value: str) -> str:
    if value and value not in PROVOKED:
        raise UsageError(f"--fault …provokes={value}: give one of the counters {', '.join(PROVOKED)}.")
    return value


def _state(value: str) -> State:
    try:
        return State(value)
    except ValueError:
        raise UsageError(f"--fault …when={value}: there is no such state; there are {', '.join(State)}.") from None


def _alone(value: str) -> Alone:
    try:
        return Alone(value)
    except ValueError:
        raise UsageError(f"--fault …alone={value}: give one of {', '.join(Alone)}.") from None


def _made(kind: str, options: Mapping[str, str]) -> Fault:
    make = KINDS[kind]
    readers = _readers(make)
    if unknown := [name for name in options if name not in readers]:
        known = ", ".join((*readers, *(() if issubclass(make, OfLoad) else _TIMES), "provokes"))
        raise UsageError(f"--fault {kind}:{unknown[0]}=…: {kind} has no such option; it has {known}.")
    try:
        return make(**{name: readers[name](value) for name, value in options.items()})
    except ValueError as error:
        raise UsageError(f"--fault {kind}: {error}") from None


def _readers(make: type[Fault]) -> dict[str, Callable[[str], Any]]:
    """How the text of each option becomes its value: by the type of its default."""
    return {name: type(default) for name, default in options_of(make).items()}


def options_of(kind: type[Fault]) -> dict[str, str | int | float]:
    """The options of one kind of fault, with their defaults; without those of every fault."""
    # A class variable is no field.
    own = fields(cast("Any", kind))
    return {one.name: one.default for one in own if one.init and isinstance(one.default, str | int | float)}
