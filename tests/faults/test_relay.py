"""A relay passes bytes, and does with them what it was told, as counted by both ends."""

import asyncio
import socket

import pytest
from polling import until
from relayed import Streams, wired
from turns import turn

from harness.faults.relay_manner import Manner
from harness.faults.relay_way import Way


async def _says(streams: Streams, data: bytes) -> None:
    streams[1].write(data)
    await streams[1].drain()


async def _hears(streams: Streams, size: int) -> bytes:
    async with asyncio.timeout(20):
        return await streams[0].readexactly(size)


def _silent(streams: Streams) -> bool:
    """Whether nothing has arrived; read from the buffer, since reading would wait."""
    return not streams[0]._buffer  # type: ignore[attr-defined]


async def _was_reset(streams: Streams) -> None:
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(streams[0].read(), 20)


async def test_bytes_and_ends_are_passed_both_ways() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await _says(client, b"question")
        assert await _hears(server, 8) == b"question"
        client[1].write_eof()
        assert await server[0].read() == b""
        await _says(server, b"answer")
        server[1].close()
        assert await client[0].read() == b"answer"
        await wire.counted("open", 0)
        counts = wire.relay.counted()
        assert (counts["came"], counts["passed"], counts["held"], counts["swallowed"]) == (14, 14, 0, 0)
        assert (counts["to_server"], counts["to_client"]) == (8, 6)


async def test_small_pieces_do_not_wait_for_each_other() -> None:
    """Or answers would seem to be held back for 40 ms now and then (Nagle and delayed acknowledgements)."""
    async with wired() as wire:
        await wire.pair()
        (connection,) = wire.relay._connections
        sockets = [writer.get_extra_info("socket") for writer in connection._writers]
        assert len(sockets) == 2
        assert all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets)


async def test_a_server_that_cannot_be_reached_resets_the_client() -> None:
    async with wired() as wire:
        _, server = await wire.pair()
        wire.relay._server = ("127.0.0.1", 1)
        await _was_reset(await wire.connect())
        assert not server[0].at_eof()


async def test_a_delay_holds_each_byte_so_long_each_way() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await wire.relay.tell({"how": "delay", "seconds": 2.0})
        await _says(client, b"question")
        await wire.counted("came", 8)
        await wire.clock.advance(1.9)
        assert _silent(server)
        await wire.clock.advance(2.0)
        assert await _hears(server, 8) == b"question"
        await _says(server, b"answer")
        await wire.counted("came", 14)
        await wire.clock.advance(4.0)
        assert await _hears(client, 6) == b"answer"
        assert wire.relay.counted()["held"] == 14
        assert wire.relay.counted()["longest_hold"] == 2.0


async def test_pieces_overlap_in_a_delay() -> None:
    """Two pieces a second apart are two seconds late, not three."""
    async with wired() as wire:
        client, server = await wire.pair()
        await wire.relay.tell({"how": "delay", "seconds": 2.0})
        await _says(client, b"one")
        await wire.counted("came", 3)
        await wire.clock.advance(1.0)
        await _says(client, b"two")
        await wire.counted("came", 6)
        await wire.clock.advance(3.0)
        assert await _hears(server, 6) == b"onetwo"


async def test_what_is_held_back_passes_when_the_fault_ends() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await wire.relay.tell({"how": "delay", "seconds": 1000.0})
        await _says(client, b"question")
        await wire.counted("came", 8)
        await wire.relay.tell({"how": "pass"})
        assert await _hears(server, 8) == b"question"
        assert wire.relay.counted()["held"] == 0


async def test_a_throttle_passes_so_many_bytes_a_second() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await wire.relay.tell({"how": "throttle", "rate": 128.0})
        await _says(client, bytes(256))
        await wire.counted("came", 256)
        await wire.clock.advance(1.0)
        await wire.counted("passed", 128)
        await wire.clock.advance(2.0)
        assert await _hears(server, 256) == bytes(256)
        assert wire.relay.counted()["held"] == 256


async def test_connections_share_a_throttled_link() -> None:
    async with wired() as wire:
        one, _ = await wire.pair()
        other, _ = await wire.pair()
        await wire.relay.tell({"how": "throttle", "rate": 128.0})
        await _says(one, bytes(128))
        await _says(other, bytes(128))
        await wire.counted("came", 256)
        await wire.clock.advance(1.0)
        await wire.counted("passed", 128)


async def test_a_cut_resets_connections_and_refuses_new_ones_until_it_ends() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await wire.relay.tell({"how": "cut", "refuses": True})
        await _was_reset(client)
        await _was_reset(server)
        with pytest.raises(ConnectionRefusedError):
            await wire.connect()
        assert wire.relay.counted()["reset"] == 1
        assert wire.relay.counted()["passed"] == 0
        await wire.relay.tell({"how": "pass"})
        client, server = await wire.pair()
        await _says(client, b"again")
        assert await _hears(server, 5) == b"again"


async def test_a_cut_that_listens_counts_whom_it_refuses() -> None:
    async with wired() as wire:
        await wire.relay.tell({"how": "cut"})
        await _was_reset(await wire.connect())
        assert wire.relay.counted()["refused"] == 1
        assert not wire.servers


async def test_bytes_that_were_read_before_a_cut_do_not_pass_after_it() -> None:
    """The reader of a connection may have handed a piece over when the connection is reset."""
    async with wired() as wire:
        client, _ = await wire.pair()
        (connection,) = wire.relay._connections
        connection.reset()
        piece = asyncio.StreamReader()
        piece.feed_data(b"question")
        piece.feed_eof()
        await Way(connection, piece, client[1], to_server=False).run()
        assert wire.relay.counted()["passed"] == 0


async def test_a_half_open_link_swallows_everything_and_answers_nothing() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await wire.relay.tell({"how": "half-open"})
        await _says(client, b"question")
        await _says(server, b"answer")
        late = await wire.connect()
        await _says(late, b"hello")
        await wire.counted("swallowed", 19)
        assert len(wire.servers) == 1
        assert wire.relay.counted()["passed"] == 0
        assert _silent(client)
        assert _silent(server)


async def test_connections_that_lost_bytes_are_reset_when_the_fault_ends_and_others_go_on() -> None:
    async with wired() as wire:
        client, _ = await wire.pair()
        quiet, server = await wire.pair()
        await wire.relay.tell({"how": "half-open"})
        await _says(client, b"question")
        await wire.counted("swallowed", 8)
        await wire.relay.tell({"how": "pass"})
        await _was_reset(client)
        await _says(quiet, b"still here")
        assert await _hears(server, 10) == b"still here"


async def test_silent_connections_are_forgotten_and_nobody_is_told() -> None:
    async with wired() as wire:
        silent, _ = await wire.pair()
        busy, server = await wire.pair()
        await wire.relay.tell({"how": "idle", "seconds": 2.0})
        for second in range(1, 4):
            await wire.clock.advance(float(second))
            await _says(busy, b"x")
            assert await _hears(server, 1) == b"x"
        assert wire.relay.counted()["dropped"] == 1
        await _says(silent, b"is anybody there?")
        await wire.counted("swallowed", 17)
        assert not silent[0].at_eof()
        await wire.relay.tell({"how": "pass"})
        await _was_reset(silent)


async def test_a_server_that_does_not_read_stops_the_client() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        server[1].transport.pause_reading()  # type: ignore[attr-defined] # a read transport as well
        total = 1 << 28
        client[1].write(bytes(total))
        came, still = -1, 0
        while still < 1000:
            await turn()
            still = still + 1 if came == wire.relay.counts.came else 0
            came = wire.relay.counts.came
        assert came < total / 4
        assert client[1].transport.get_write_buffer_size() > total / 2


async def test_telling_it_returns_what_was_counted_and_counts_anew() -> None:
    async with wired() as wire:
        client, server = await wire.pair()
        await _says(client, b"abc")
        assert await _hears(server, 3) == b"abc"
        assert (await wire.relay.tell({"how": "pass"}))["passed"] == 3
        assert wire.relay.counted()["passed"] == 0
        assert wire.relay.counted()["open"] == 1


@pytest.mark.parametrize(
    "order",
    [
        {"how": "explode"},
        {"how": "delay"},
        {"how": "delay", "seconds": -1},
        {"how": "delay", "seconds": float("nan")},
        {"how": "throttle", "rate": 0},
        {"how": "cut", "where": "here"},
        {"how": "throttle", "rate": "many"},
    ],
)
def test_an_order_that_no_relay_can_follow_is_refused(order: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"relay|How"):
        Manner.read(order)


async def test_the_port_is_free_again_when_the_relay_has_stopped() -> None:
    async with wired() as wire:
        port = wire.relay.port
        await wire.relay.stop()
        server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", port)
        server.close()
        await server.wait_closed()
        await until(lambda: not server.is_serving())
