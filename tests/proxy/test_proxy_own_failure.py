"""A bug in the proxy itself is answered, or ends the answer visibly, and is logged."""

import logging
from typing import Any

import pytest
from raw_http import answer, answers, post, raw_client, rig

DONE = b'{"done": true}'


@pytest.mark.parametrize("begun", [False, True])
async def test_a_bug_is_500_or_a_cut_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    async def relay(request: Any, client: Any, *_rest: Any) -> None:
        if begun:
            client.begin(request, 200, None, [])
            client.send(b"half", ended=False)
        raise ZeroDivisionError

    monkeypatch.setattr("harness.proxy.app.relay", relay)
    async with rig(answers(answer(DONE))) as running, raw_client(running.proxy.url) as client:
        client.send(post())
        if begun:
            await client.head()
            assert await client.rest() == b"4\r\nhalf\r\n"
        else:
            status, body = await client.counted()
            assert status == 500
            assert b"The proxy itself failed" in body
            assert b"ZeroDivisionError" not in body
        assert running.proxy.status()["in_flight"] == 0
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
