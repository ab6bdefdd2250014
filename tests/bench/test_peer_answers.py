"""What the stub writes to each kind of client."""

import json
from collections.abc import Iterator

import httptools
import pytest

from bench.peer_answers import Form, form, number_of, numbered, plain, sizes, stream, unstreamed


class _Body:
    """Collects what a parser finds."""

    def __init__(self, data: bytes) -> None:
        self.data = b""
        self.ended = False
        httptools.HttpResponseParser(self).feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.ended = True


def _events(body: bytes) -> Iterator[dict[str, object]]:
    for line in body.decode().split("\n\n")[:-2]:
        yield json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize(("tokens", "pieces"), [(1, 1), (128, 1), (128, 16), (7, 3), (128, 128)])
@pytest.mark.parametrize("kind", Form)
def test_a_stream_is_the_same_in_any_number_of_writes(kind: Form, tokens: int, pieces: int) -> None:
    writes = stream(kind, tokens, pieces, prompt=3)
    assert len(writes) == pieces
    body = _Body(b"".join(writes))
    assert body.ended
    assert body.data == _Body(stream(kind, tokens, 1, prompt=3)[0]).data
    assert len(list(_events(body.data))) == tokens + 1


def test_each_write_has_the_tokens_that_are_counted_for_it() -> None:
    writes = stream(Form.TEXT, tokens=7, pieces=3, prompt=3)
    assert [write.count(b" word") for write in writes] == sizes(7, 3) == [2, 2, 3]


def test_a_client_gets_the_form_that_it_asks_for() -> None:
    assert form(b"/v1/completions", b'{"return_token_ids":true}') is Form.IDS
    assert form(b"/v1/completions", b'{"prompt":[1]}') is Form.TEXT
    assert form(b"/v1/chat/completions", b"{}") is Form.CHAT


def test_the_number_of_a_stream_is_read_back_from_its_response_id() -> None:
    first = numbered(stream(Form.TEXT, tokens=4, pieces=2, prompt=3)[0], 4711)
    assert number_of(str(next(_events(_Body(first).data + b"data: [DONE]\n\n"))["id"])) == 4711


def test_what_is_not_streamed_is_one_whole_answer() -> None:
    assert json.loads(_Body(unstreamed(2, 3)).data)["usage"]["completion_tokens"] == 2
    assert json.loads(_Body(plain(b"/v1/models")).data)["data"][0]["id"] == "m"
    assert b"vllm:cache_config_info" in _Body(plain(b"/metrics")).data
