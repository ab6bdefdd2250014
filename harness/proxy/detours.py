"""Addresses that the proxy uses in place of others, so that a test may put something between two servers. No I/O.

A detour holds for the proxy's own connections and for what it hands from P to D: with a detour of P's side channel, D
makes its handshake over there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.errors import UsageError
from harness.proxy.contract import Json

_PORTS = 1 << 16


class Address(NamedTuple):
    """Host and port."""

    host: str
    port: int


Detours = Mapping[Address, Address]
"""The address to be used, by the one that is meant."""


def read_detours(texts: Sequence[str]) -> Detours:
    """The detours of arguments of the form ``HOST:PORT=HOST:PORT``. Raises UsageError."""
    return dict(map(_read, texts))


def _read(text: str) -> tuple[Address, Address]:
    meant, _, used = text.partition("=")
    return _address(meant, text), _address(used, text)


def _address(part: str, text: str) -> Address:
    host, _, port = part.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < _PORTS:
        raise UsageError(f"--detour {text}: give two addresses, as in 127.0.0.1:8100=127.0.0.1:9100.")
    return Address(host, int(port))


def detoured(params: Json, detours: Detours) -> Json:
    """P's ``kv_transfer_params`` with the address at which D shall find P's side channel."""
    found = detours.get(Address(params["remote_host"], params["remote_port"])) if detours else None
    return params if found is None else {**params, "remote_host": found.host, "remote_port": found.port}
