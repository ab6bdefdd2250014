"""Where requests go that are sent to a proxy which the harness did not start: read off the servers' own counters.

A known number of prompts of a known length is sent through it, and nothing else is asked meanwhile.

- Fewer prompt tokens on the decode servers than were sent: some requests were decoded elsewhere.
- KV that arrived on a server given as prefill: the two are swapped.
- KV that arrived on decode, and no prompt on prefill: a prefill server is asked that is not listed.

What other clients ask at the same time can only add to these counts, so that too few is certain. Nothing at all on a
prefill server while decode computes the prompts itself is no matter of addresses: the run's verdict says it.
"""

from collections.abc import Iterator, Sequence

from harness.facts import Role, Server
from harness.observe.counters import Delta
from harness.preflight.item import Item, Level
from harness.preflight.words import shown_url


def arrived(servers: Sequence[Server], since: Sequence[Delta | None], sent: int) -> bool:
    """Whether the decode servers have counted every token of the ``sent`` prompt tokens, and prefill its part."""
    return all((_sum(servers, since, role, "prompt_tokens") or 0) >= sent for role in Role)


def leads_to(
    proxy_url: str, servers: Sequence[Server], since: Sequence[Delta | None], *, requests: int, tokens: int
) -> Iterator[Item]:
    """``since``: what each server counted while ``requests`` prompts of ``tokens`` tokens went through the proxy."""
    at = f"The proxy at {shown_url(proxy_url)}"
    prompts = {role: _sum(servers, since, role, "prompt_tokens") for role in Role}
    pulled = {role: _sum(servers, since, role, "external_kv_transfer") for role in Role}
    on_prefill, on_decode = prompts[Role.PREFILL], prompts[Role.DECODE]
    if on_prefill is None or on_decode is None:
        yield Item(
            "proxy", Level.UNKNOWN, f"{at}: whom it asks is not known, since a server's counters could not be read"
        )
        return
    listed = "List every server that it asks with --prefill-url and --decode-url, or give the proxy of these servers"
    if not on_prefill and not on_decode:
        yield Item(
            "proxy", Level.STOPS, f"{at} asks none of the listed servers: {requests} requests came to no one", listed
        )
    elif pulled[Role.PREFILL] and not pulled[Role.DECODE]:
        yield Item(
            "proxy",
            Level.STOPS,
            f"{at} decodes on the servers that are given as prefill servers: they took {pulled[Role.PREFILL]:,.0f} "
            "prompt tokens by KV transfer, and the decode servers none",
            "Swap --prefill-url and --decode-url",
        )
    elif on_decode < requests * tokens:
        missing = requests - int(on_decode // tokens)
        yield Item(
            "proxy",
            Level.STOPS,
            f"{at} also asks decode servers that are not listed: {missing} of {requests} requests never came to a "
            "listed one",
            listed,
        )
    elif pulled[Role.DECODE] and on_prefill < requests * tokens and _everything_pulled(pulled, requests, tokens):
        missing = requests - int(on_prefill // tokens)
        yield Item(
            "proxy",
            Level.STOPS,
            f"{at} also asks prefill servers that are not listed: {missing} of {requests} prompts never came to a "
            "listed one, and their KV came to decode",
            listed,
        )
    else:
        yield from _never_asked(at, servers, since) or [Item("proxy", Level.OK, f"{at} asks the listed servers")]


def _never_asked(at: str, servers: Sequence[Server], since: Sequence[Delta | None]) -> list[Item]:
    """Servers that got none of the requests, although others of their role did."""
    return [
        Item(
            "proxy",
            Level.WARNS,
            f"{at} asked {server.name} at {shown_url(server.url)} nothing",
            "Check that it is one of the proxy's servers; what nobody asks is not judged",
        )
        for server, one in zip(servers, since, strict=True)
        if one is not None and not one.of("prompt_tokens")
    ]


def _everything_pulled(pulled: dict[Role, float | None], requests: int, tokens: int) -> bool:
    # vLLM computes a prompt's last token itself where all of its KV is there: one token less for each request.
    return (pulled[Role.DECODE] or 0) >= requests * (tokens - 1)


def _sum(servers: Sequence[Server], since: Sequence[Delta | None], role: Role, counter: str) -> float | None:
    values = [
        None if one is None else one.of(counter)
        for server, one in zip(servers, since, strict=True)
        if server.role is role
    ]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
