"""Everything that the harness starts listens on the loopback interface alone, and no key is in a process's title."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

_PROC = Path("/proc")
_LISTENS = "0A"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000")
_KEY = "s3cret-of-a-header"

pytestmark = pytest.mark.skipif(not (_PROC / "net/tcp").exists(), reason="Linux lists sockets there")


def _descendants(pid: int) -> Iterator[int]:
    for thread in (_PROC / str(pid) / "task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from _descendants(child)


def _inodes(pid: int) -> Iterator[str]:
    for one in (_PROC / str(pid) / "fd").iterdir():
        if (name := str(one.readlink())).startswith("socket:["):
            yield name.removeprefix("socket:[").removesuffix("]")


def _listening(inodes: set[str]) -> Iterator[str]:
    """The addresses, in hexadecimal, at which these sockets listen."""
    for table in ("net/tcp", "net/tcp6"):
        for line in (_PROC / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and fields[9] in inodes:
                yield fields[1].partition(":")[0]


def _titles() -> list[bytes]:
    return [(_PROC / str(pid) / "cmdline").read_bytes() for pid in _descendants(os.getpid())]


def test_servers_relays_and_the_proxy_listen_on_loopback_alone() -> None:
    with harness.simulate(separate_processes=True, relays=("decode-0", "side-channel")) as pair:
        found = list(_listening({inode for pid in _descendants(os.getpid()) for inode in _inodes(pid)}))
        # Two servers, a side channel, two relays and their control, and the proxy.
        assert len(found) >= 7
        assert set(found) <= set(_LOOPBACK)
        before = len(_titles())
        urls = {f"{server.role}_urls": [server.url] for server in pair.facts.servers}
        with harness.attach(**urls, headers={"X-Key": _KEY}):
            titles = _titles()
    assert len(titles) > before
    assert not [title for title in titles if _KEY.encode() in title]
