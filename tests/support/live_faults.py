"""The faults that the live tests cause on their shared pair, and the relays that it needs for them."""

from harness.faults import parse_fault, relays_for

SHORT = (
    "pause:server=decode-0,part=engine,ended=10,for=1",
    "link:link=decode-0,how=cut,after=0,for=0.5",
    "metrics:server=decode-0,how=500,after=0,for=0.5",
    "cancel:share=0.3,moment=transfer",
    "kill:server=proxy,ended=10,for=0.5",
)
"""Faults that a pair gets over in seconds."""
KILLED = "kill:server=prefill-0,ended=10,for=0"
"""A server takes a minute or more to start again."""
RELAYS = relays_for(map(parse_fault, (*SHORT, KILLED)))
