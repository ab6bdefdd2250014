"""Which servers the user's proxy asks, according to the servers' own counters.

A known number of prompts of a known length is sent through the proxy, and no other request meanwhile.

- The decode servers counted fewer prompt tokens than were sent: some requests were decoded on other servers.
- KV arrived on a server given as a prefill server: prefill and decode servers are swapped.
- KV arrived on decode servers, but prefill servers counted too few prompts: an unlisted prefill server was asked.

Other clients' requests can only increase these counts, so a count that is too low is certain. If prefill servers count
nothing and decode servers compute the prompts themselves, the addresses are not at fault: the run's verdict covers it.
"""

from collections.abc import Iterator, Sequence

from harness.facts import Role, Server
from harness.observe.growth import Delta
from harness.preflight.item import Item, Level
from harness.redact import redact_url


def all_prompts_counted(servers: Sequence[Server], growth: Sequence[Delta | None], sent: int) -> bool:
    """Whether the prefill servers and the decode servers have each counted the ``sent`` prompt tokens."""
    return all((_sum(servers, growth, role, "prompt_tokens") or 0) >= sent for role in Role)


def check_proxy_servers(
    proxy_url: str, servers: Sequence[Server], growth: Sequence[Delta | None], *, requests: int, tokens: int
) -> Iterator[Item]:
    """``growth``: each server's counts while ``requests`` prompts of ``tokens`` tokens went through the proxy."""
    proxy = f"The proxy at {redact_url(proxy_url)}"
    prompts = {role: _sum(servers, growth, role, "prompt_tokens") for role in Role}
    transferred = {role: _sum(servers, growth, role, "external_kv_transfer") or 0 for role in Role}
    on_prefill, on_decode = prompts[Role.PREFILL], prompts[Role.DECODE]
    list_all = "List all servers of the proxy with --prefill-url and --decode-url, or give the proxy of these servers"
    if on_prefill is None or on_decode is None:
        yield Item(
            "proxy",
            Level.UNKNOWN,
            f"{proxy}: it is unknown which servers it asks, because a server's counters could not be read",
        )
    elif not on_prefill and not on_decode:
        yield Item(
            "proxy",
            Level.STOPS,
            f"{proxy} asks none of the listed servers: none of {requests} requests arrived at one",
            list_all,
        )
    elif transferred[Role.PREFILL] and not transferred[Role.DECODE]:
        yield Item(
            "proxy",
            Level.STOPS,
            f"{proxy} decodes on the servers given as prefill servers: these got {transferred[Role.PREFILL]:,.0f} "
            "prompt tokens by KV transfer, and the decode servers none",
            "Swap --prefill-url and --decode-url",
        )
    elif on_decode < requests * tokens:
        missing = requests - int(on_decode // tokens)
        yield Item(
            "proxy",
            Level.STOPS,
            f"{proxy} also asks decode servers that are not listed: {missing} of {requests} requests never arrived at "
            "a listed one",
            list_all,
        )
    # vLLM computes a prompt's last token itself even if all of its KV was transferred.
    elif on_prefill < requests * tokens and transferred[Role.DECODE] >= requests * (tokens - 1):
        missing = requests - int(on_prefill // tokens)
        yield Item(
            "proxy",
            Level.STOPS,
            f"{proxy} also asks prefill servers that are not listed: {missing} of {requests} prompts never arrived at "
            "a listed one, although their KV arrived at the decode servers",
            list_all,
        )
    else:
        yield from _never_asked(proxy, servers, growth) or [
            Item("proxy", Level.OK, f"{proxy} asks the listed servers and no others")
        ]


def _never_asked(proxy: str, servers: Sequence[Server], growth: Sequence[Delta | None]) -> list[Item]:
    """Servers that got none of the requests, although others of their role did."""
    return [
        Item(
            "proxy",
            Level.WARNS,
            f"{proxy} sent no request to {server.name} at {redact_url(server.url)}",
            "Check that the server belongs to the proxy; the run cannot test a server that gets no requests",
        )
        for server, grown in zip(servers, growth, strict=True)
        if grown is not None and not grown.of("prompt_tokens")
    ]


def _sum(servers: Sequence[Server], growth: Sequence[Delta | None], role: Role, counter: str) -> float | None:
    """A counter's growth over the servers of a role; None if it is unknown for one of them."""
    values = [
        None if grown is None else grown.of(counter)
        for server, grown in zip(servers, growth, strict=True)
        if server.role is role
    ]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
