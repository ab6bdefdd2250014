"""References to KV on a prefill server (``kv_transfer_params``) that no proxy would hand to a decode server.

What is right: the decode server answers with a clear error, or with the right output, which it has computed itself. It
never answers with a wrong output, never leaves a request without an end, and never dies. Requests beside it, through
the proxy, are served and right, and afterwards no block is held and every counter is as predicted.

What vLLM 0.32.0 does with MultiConnector[nixl, offloading] on a CPU, one request at a time:

    reference                                            answer
    as given; another request's name; used again or      200, the right output: decode reads the blocks that it names
    kept past its lease, while its blocks still hold
    the prompt's KV; more ranks; digits as texts;
    fractions; the same blocks ten thousand times
    another engine at the same address, a port that is   500 at once
    no number, blocks out of range or below zero
    a host or port where nothing listens, all made up    500 after five to ten seconds
    a text or a list in place of the object              400
    used again, or kept past its lease, when its blocks  200 and a WRONG OUTPUT
    hold another prompt's KV
    blocks in another order, or one too many             200 and a WRONG OUTPUT
    the name of the request is missing                   NO END; when the client leaves, the blocks STAY HELD if the
                                                         request was streamed, and else the ENGINE ENDS
    a block too few; no blocks                           500, and the ENGINE ENDS

The references are sent in phases that are not counted, since a refused reference leaves blocks on prefill until the end
of their lease. The last phase is counted: its first reading waits until these blocks were released.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Altered, Phase, Request, Route
from harness.verdict import FaultSign, FindingKind, KnownFault
from workloads.offload import flood

_HOME = "reused_blocks"
_ANY = Needs(prefix_caching=True)
_POOL = Needs(most_blocks=128, prefix_caching=True)
_PROMPT = 3
"""Whole blocks of a prompt; a few tokens more follow."""
_VERSIONS, _DEVICES = ("0.32.0",), ("cpu",)
_SOON = 20.0
"""Seconds in which a request must end that waits for nothing but an error."""


def _wrong(evidence: str) -> KnownFault:
    return KnownFault((FaultSign("outputs", findings=FindingKind.WRONG_OUTPUT),), _VERSIONS, _DEVICES, evidence)


def _uncounted(name: str, requests: Iterable[Request], concurrency: int = 0) -> Phase:
    asked = tuple(requests)
    return Phase(name, asked, concurrency or len(asked), counted=False)


def _length(build: Builder) -> int:
    return _PROMPT * build.block + 5


def _beside(build: Builder) -> list[Request]:
    return [build.ask(_length(build) + number) for number in range(3)]


def _afterwards(build: Builder) -> Iterator[Phase]:
    """Plain requests: so prefill reads all notifications that are left, and then every counter must be as predicted."""
    yield _uncounted("beside nothing", [build.ask(_length(build))])
    yield together("afterwards", _beside(build))


def _until_lease_ends(name: str, held: Iterable[Request]) -> Phase:
    """Prompts that are held on prefill. The reading after this phase waits until prefill holds no block any more."""
    return replace(_uncounted(name, held), watched=True)


def _altered(build: Builder, ways: Iterable[Altered]) -> Iterator[Phase]:
    held = {way: build.holding(_length(build)) for way in ways}
    yield _uncounted("hold", held.values())
    yield _uncounted("send", [*(build.handed(one, way) for way, one in held.items()), *_beside(build)])
    yield from _afterwards(build)


@workload(family="parameters", needs=_ANY, home=_HOME)
def given_reference(build: Builder) -> Iterator[Phase]:
    """Prompts held on prefill, whose references go to decode as they were given, as a proxy does it.

    Hunts nothing by itself: it shows that references are handed over rightly in the other workloads of the family.
    """
    held = [build.holding(length) for length in (build.block - 1, 2 * build.block, _length(build))]
    yield _uncounted("hold", held)
    yield _uncounted("send", [build.handed(one) for one in held])
    yield from _afterwards(build)


@workload(family="parameters", needs=_ANY, home=_HOME)
def unknown_names(build: Builder) -> Iterator[Phase]:
    """References that name a request, an engine, a host or a port that does not exist, or that are all made up.

    Hunts requests that wait for a server that is not there, or that are answered without the KV that never came.
    """
    servers = (Altered.UNKNOWN_ENGINE, Altered.OTHER_HOST, Altered.OTHER_PORT, Altered.TEXT_PORT)
    sending, *after = _altered(build, (Altered.UNKNOWN_REQUEST, *servers, Altered.SYNTHETIC))
    yield sending
    yield after[0]
    # A handshake that nobody answers ends after five seconds, one after another, and decode counts it as failed even
    # if its request has ended: counters are read when two more leases have ended.
    yield _until_lease_ends("hold once", [build.holding(build.block)])
    yield _until_lease_ends("hold twice", [build.holding(build.block)])
    yield from after[1:]


@workload(family="parameters", needs=_ANY, home=_HOME)
def malformed_references(build: Builder) -> Iterator[Phase]:
    """References with impossible block ids, sizes and types, or that are no object at all.

    Hunts references that are used before they are checked.
    """
    ids = (Altered.OUT_OF_RANGE, Altered.NEGATIVE, Altered.HUGE, Altered.TEXT_IDS, Altered.FRACTIONS)
    yield from _altered(build, (*ids, Altered.OTHER_TP, Altered.TEXT))


@workload(family="parameters", needs=_ANY, home=_HOME)
def used_again(build: Builder) -> Iterator[Phase]:
    """References that were used before, sent again for the same prompt while their blocks still hold its KV.

    Hunts servers that give up on a notification for a request that they have forgotten.
    """
    held = _two_held(build)
    yield _uncounted("hold", held)
    yield _uncounted("first", [build.handed(one) for one in held])
    # Nothing beside them: prefill may give their blocks to any other prompt.
    yield _uncounted("send", [build.handed(one, again=True) for one in held])
    yield from _afterwards(build)


@workload(
    family="parameters",
    needs=_POOL,
    home=_HOME,
    known_fault=_wrong(
        "a reference that was used and whose blocks hold another prompt's KV since is served with HTTP "
        "200 and a wrong output: nobody compares the blocks with the request that they were given for"
    ),
)
def used_after_reuse(build: Builder) -> Iterator[Phase]:
    """References that were used before, sent again when their blocks hold other prompts' KV.

    Hunts answers to another prompt: a decode server reads whatever the blocks hold now.
    """
    held = _two_held(build)
    yield _uncounted("hold", held)
    yield _uncounted("first", [build.handed(one) for one in held])
    yield from _after_reuse(build, held)


@workload(
    family="parameters",
    needs=_POOL,
    home=_HOME,
    provokes="nixl_expired",
    known_fault=_wrong(
        "a reference whose lease has ended and whose blocks hold another prompt's KV since is served "
        "with HTTP 200 and a wrong output: decode does not look at the lease"
    ),
)
def kept_past_lease(build: Builder) -> Iterator[Phase]:
    """References that were kept until their lease had ended and their blocks held other prompts' KV.

    Hunts answers to another prompt, as ``used_after_reuse`` does, from a reference that was never used.
    """
    held = _two_held(build)
    yield _until_lease_ends("hold", held)
    yield from _after_reuse(build, held)


def _two_held(build: Builder) -> list[Request]:
    return [build.holding(_length(build)) for _ in range(2)]


def _after_reuse(build: Builder, held: Iterable[Request]) -> Iterator[Phase]:
    """The references are sent when as many new blocks were made on prefill as its pool has."""
    whole = flood(build, Route.PREFILL)
    yield _uncounted("overwrite", whole.requests, whole.concurrency)
    yield _uncounted("send", [*(build.handed(one, again=True) for one in held), *_beside(build)])
    yield from _afterwards(build)


@workload(
    family="parameters",
    needs=_ANY,
    home=_HOME,
    known_fault=_wrong(
        "block ids in another order and a block too many are served with HTTP 200 and a wrong output: "
        "the last blocks of the list are read as they come"
    ),
)
def other_blocks(build: Builder) -> Iterator[Phase]:
    """References whose blocks are in another order, or one too many.

    Hunts block ids that are taken as they come: the output answers whatever these blocks hold.
    """
    yield from _altered(build, (Altered.REORDERED, Altered.TOO_MANY))


def _fatal(altered: Altered, evidence: str) -> KnownFault:
    signs = FaultSign("processes", findings=FindingKind.OTHER), FaultSign("completion", findings=FindingKind.OTHER)
    return KnownFault(signs, _VERSIONS, _DEVICES, f"a reference altered as {altered}: {evidence}", ends_server=True)


def _last_reference(build: Builder, altered: Altered) -> Iterator[Phase]:
    """Nothing can be asked after this reference, if it ends the decode server."""
    yield together("before", _beside(build))
    held = build.holding(_length(build))
    yield _uncounted("hold", [held])
    # Not streamed: when the client of a request that hangs leaves, vLLM then takes another way than for streams.
    yield _uncounted("send", [replace(build.handed(held, altered, deadline=_SOON), stream=False)])
    yield _uncounted("served again", _beside(build))


@workload(
    family="parameters",
    needs=_ANY,
    home=_HOME,
    alone=True,
    known_fault=_fatal(
        Altered.LACKS_REQUEST,
        "decode waits for a transfer that never begins (Got invalid KVTransferParams), and when the client leaves, the "
        "engine ends with KeyError: 'remote_request_id' (NixlConnectorMetadata.add_new_req_to_recv)",
    ),
)
def nameless_reference(build: Builder) -> Iterator[Phase]:
    """A reference that lacks the name of the request on prefill.

    Hunts requests that wait for ever for a transfer that never begins, and their end.
    """
    yield from _last_reference(build, Altered.LACKS_REQUEST)


@workload(
    family="parameters",
    needs=_ANY,
    home=_HOME,
    alone=True,
    known_fault=_fatal(Altered.TOO_FEW, "an assertion ends the engine (num_decode_blocks <= len(prefill_group))"),
)
def truncated_reference(build: Builder) -> Iterator[Phase]:
    """A reference from which the last block is missing.

    Hunts assertions about what a client sent, which end the whole engine.
    """
    yield from _last_reference(build, Altered.TOO_FEW)


@workload(
    family="parameters",
    needs=_ANY,
    home=_HOME,
    alone=True,
    known_fault=_fatal(Altered.NO_GROUPS, "an assertion ends the engine (num_external_tokens == 0)"),
)
def empty_reference(build: Builder) -> Iterator[Phase]:
    """A reference without any block.

    Hunts the bug of truncated_reference in the scheduler, where the list is looked at first.
    """
    yield from _last_reference(build, Altered.NO_GROUPS)
