"""Reading many events at once gives what reading them one by one gives, whatever the stream holds."""

import gc
import json
from typing import Any

import load_wire as wire
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_answers import (
    ELSEWHERE,
    IDS,
    WRITERS,
    Writer,
    bodies,
    mixed_chunk,
    plain_streams,
    read,
    read_body,
    rows,
    streams,
)

from harness.load.answers import chunks, events, frames
from harness.load.answers.answer import Answer
from harness.load.answers.columns import Rows, token_logprobs
from harness.load.answers.kinds import kind_of_stream
from harness.load.answers.logprobs import read_rows

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("writer", [*WRITERS.values(), mixed_chunk])
@MANY
@given(data=st.data(), ends=st.booleans(), held=st.sampled_from([1 << 17, 0, 300]))
def test_both_readers_give_the_same(writer: Writer, data: st.DataObject, ends: bool, held: int) -> None:
    """Also when a stream is read in parts, some of them at once and some one by one. NaN is compared by its text."""
    reads = data.draw(streams(writer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "MOST_HELD", held)
        assert repr(read(reads, typed=True, ends=ends)) == repr(read(reads, typed=False, ends=ends))


@pytest.mark.parametrize("endpoint", WRITERS)
@MANY
@given(data=st.data())
def test_both_readers_give_the_same_of_plain_streams(endpoint: str, data: st.DataObject) -> None:
    reads = data.draw(plain_streams(endpoint))
    assert repr(read(reads, typed=True)) == repr(read(reads, typed=False))


@pytest.mark.parametrize("writer", [*WRITERS.values(), mixed_chunk])
@MANY
@given(data=st.data())
def test_both_readers_give_the_same_of_a_whole_answer(writer: Writer, data: st.DataObject) -> None:
    payload = data.draw(bodies(writer))
    assert repr(read_body(payload, typed=True)) == repr(read_body(payload, typed=False))


def test_plain_choices_are_read_as_such() -> None:
    cut = [b'{"index":0,"text":"a","logprobs":null,"token_ids":[%d]}' % number for number in range(5)]
    for odd, expected in ((b"", 2), (b'{"index":1,"text":"a","token_ids":[9]}', 6), (b'{"text":"","token_ids":[]}', 6)):
        choices, not_plain = frames.read_choices(kind_of_stream(b"", 0), [*cut[:2], *([odd] if odd else []), *cut[2:]])
        assert (len(choices), len(not_plain)) == (6 if odd else 5, expected)


def usual(token_ids: list[int], **fields: Any) -> bytes:
    top = {f"token_id:{token}": -0.5 - rank for rank, token in enumerate((token_ids[0], 98, 99))}
    written = {
        "tokens": [f"token_id:{token_ids[0]}"],
        "token_logprobs": [-0.5],
        "top_logprobs": [top],
        "text_offset": [0],
    }
    return wire.sse(wire.completion_chunk(token_ids, text="a", logprobs=written, **fields))


USUAL = [usual([11], prompt_token_ids=[1, 2]), usual([12]), usual([13], finish="length"), wire.sse(wire.usage(2, 3))]


@pytest.mark.parametrize("reads", [[b"".join(USUAL) + wire.DONE], [*USUAL, wire.DONE], [USUAL[0][:9], USUAL[0][9:]]])
def test_what_vllm_writes_is_read_at_once(reads: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "event", None)
    ended, _ = read(reads, typed=True)
    assert ended.choices[0].token_ids[0] == 11
    assert ended.first_logprobs == ((11, -0.5), (98, -1.5), (99, -2.5))


@pytest.mark.parametrize(
    "stream",
    [
        b"".join(USUAL).replace(b"\n", b"\r\n"),
        b"".join(USUAL).replace(b'"index": 0', b'"index": 0.0'),
        b"".join(USUAL).replace(b'"tokens": ["token_id:11"]', b'"tokens": ["token_id:10"]'),
        b"".join(USUAL).replace(b"-0.5]", b"null]"),
        b"".join(USUAL).replace(b'"cmpl-1"', b'"\xff"'),
        b"".join(USUAL).replace(b'"cmpl-1"', b"1" * 5000),
        b"".join(USUAL).replace(b'"index": 0', b'"index":\r0'),
        wire.sse(wire.ERROR),
        wire.sse({**wire.completion_chunk([11]), **wire.ERROR}),
        wire.sse(wire.completion_chunk([11], prompt_logprobs=[None])),
        wire.sse({"choices": []}),
        b"".join(USUAL).replace(b'"tokens"', b'"content": null, "tokens"'),
        wire.DONE + USUAL[0],
    ],
)
def test_anything_else_is_left_to_the_reader_of_single_events(stream: bytes) -> None:
    assert chunks.read([stream], [1.0]) is None


def test_chunks_with_the_same_frame_are_read_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_by_line", None)
    monkeypatch.setattr(Answer, "event", None)
    ended, _ = read([*USUAL, wire.DONE], typed=True)
    assert (ended.choices[0].token_ids, ended.token_times) == ((11, 12, 13), (0.0, 1.0, 2.0))


@pytest.mark.parametrize("payload", ELSEWHERE)
def test_only_a_choice_in_its_place_is_one(payload: bytes) -> None:
    stream = [b"data: %b\n\n" % payload] * 3
    assert read(stream, typed=True) == read(stream, typed=False)


def chat(token_ids: list[int], *tops: dict[int, float], **fields: Any) -> bytes:
    """A chat's chunk with a row for each of its tokens."""
    written = [(token, top[token], top) for token, top in zip(token_ids, tops, strict=True)]
    return wire.sse(wire.chat_chunk(token_ids, text="a", logprobs=wire.chat_logprobs(*written), **fields))


ROLE = wire.sse({**wire.chat_role_chunk([1, 2]), "prompt_text": None})
CHAT = [
    ROLE,
    chat([11], {11: -0.5, 98: -1.5, 99: -2.5}),
    chat([12], {12: -0.5, 98: -1.5, 99: -2.5}),
    chat([13], {13: -0.5, 98: -1.5, 99: -2.5}, finish="length", stop_reason=None),
    wire.sse(wire.usage(2, 3)),
]


@pytest.mark.parametrize("reads", [[b"".join(CHAT) + wire.DONE], [*CHAT, wire.DONE], [CHAT[0][:9], CHAT[0][9:]]])
def test_the_chat_that_vllm_writes_is_read_at_once(reads: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(reads, typed=False)
    monkeypatch.setattr(Answer, "event", None)
    assert read(reads, typed=True) == expected
    assert expected[0].prompt_token_ids == (1, 2)


def test_a_chats_chunks_with_the_same_frame_are_read_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_by_line", None)
    monkeypatch.setattr(Answer, "event", None)
    older = wire.sse(wire.chat_role_chunk([1, 2]))
    for roles in ([ROLE], [ROLE, ROLE], [older], [wire.sse({**wire.chat_chunk([]), "prompt_text": None})], []):
        ended, _ = read([*roles, *CHAT[1:], wire.DONE], typed=True)
        assert (ended.choices[0].token_ids, len(ended.token_times)) == ((11, 12, 13), 3)
        assert ended.token_times[0] == float(len(roles))
        assert ended.first_logprobs == ((11, -0.5), (98, -1.5), (99, -2.5))


def test_a_whole_answer_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = wire.chat_logprobs((11, -0.5, {11: -0.5, 98: -1.5}), (12, -0.25, {12: -0.25, 97: -1.25}))
    common = {"index": 0, "finish_reason": "stop", "stop_reason": None, "token_ids": [11, 12]}
    prompt: dict[str, Any] = {"prompt_token_ids": [1, 2], "prompt_logprobs": [None, {"2": {"logprob": -1.0}}]}
    counts = {"usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    message = {"role": "assistant", "content": "ab", "reasoning": None}
    of_chat = wire.completion_body([{**common, "message": message, "logprobs": rows}], {**counts, **prompt})
    written = wire.completion_logprobs((11, -0.5, {11: -0.5, 98: -1.5}), (12, -0.25, {12: -0.25, 97: -1.25}))
    completion = wire.completion_body([{**common, **prompt, "text": "ab", "logprobs": written}], counts)
    bodies = [json.dumps(one).encode() for one in (of_chat, completion)]
    expected = [read_body(one, typed=False) for one in bodies]
    monkeypatch.setattr(Answer, "_read", None)
    assert [read_body(one, typed=True) for one in bodies] == expected
    assert expected[0] == expected[1]
    assert expected[0][0].prompt_logprobs is not None


def altered(event: bytes, **fields: Any) -> bytes:
    """The event with other fields in its choice."""
    message = json.loads(event[6:])
    message["choices"][0].update(fields)
    return wire.sse(message)


def chat_row(*tops: tuple[int, float]) -> wire.Json:
    named = [{"token": f"token_id:{token}", "logprob": value} for token, value in tops]
    return {"content": [{**named[0], "top_logprobs": named}]}


SHORT = {"tokens": ["token_id:11", "token_id:12"], "token_logprobs": [-1.0], "top_logprobs": None}
LONG = {"tokens": ["token_id:13"], "token_logprobs": [-2.0, -3.0], "top_logprobs": None}
TWO_CHOICES = json.loads(CHAT[1][6:])
TWO_CHOICES["choices"] += wire.chat_chunk([21], index=1, text="z")["choices"]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param([altered(CHAT[1], logprobs=chat_row((11, -0.5), (11, -0.6), (98, -1)))], id="a token twice"),
        pytest.param([altered(CHAT[1], prompt_logprobs=[None, {"2": {"logprob": -1.0}}])], id="prompt's rows"),
        pytest.param([altered(CHAT[1], text="b")], id="two texts"),
        pytest.param([altered(CHAT[1], delta={}, message={"content": "b"})], id="a text elsewhere"),
        pytest.param([ROLE, wire.sse(wire.completion_chunk([11], prompt_token_ids=[3]))], id="two endpoints"),
        pytest.param(
            [wire.sse({**json.loads(USUAL[1][6:]), "prompt_token_ids": [4]}), USUAL[0], USUAL[1]], id="two prompts"
        ),
        pytest.param(
            [
                wire.sse(wire.completion_chunk([11, 12], logprobs=SHORT)),
                wire.sse(wire.completion_chunk([13], logprobs=LONG)),
            ],
            id="as many values as tokens, but elsewhere",
        ),
        pytest.param([*CHAT[1:3], altered(CHAT[1], token_ids=[], delta={}), *CHAT[3:]], id="rows of no token"),
        pytest.param([altered(ROLE, delta={"content": "Hi"}), *CHAT[1:]], id="a text without tokens"),
        pytest.param(
            [wire.sse({**TWO_CHOICES, "prompt_token_ids": [1], "prompt_text": None}), *CHAT[1:]],
            id="two choices at first",
        ),
        pytest.param([ROLE, wire.sse(wire.ERROR), *CHAT[1:]], id="an error between"),
        pytest.param([wire.sse({**json.loads(CHAT[1][6:]), **wire.ERROR}), *CHAT[1:]], id="an error beside"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize("held", [0, 1 << 17])
def test_fields_in_odd_places_are_read_as_by_the_other_reader(
    stream: list[bytes], size: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_HELD", held)
    reads = [b"".join(stream[at : at + size]) for at in range(0, len(stream), size)] + [wire.DONE]
    assert repr(read(reads, typed=True)) == repr(read(reads, typed=False))


def test_the_prompts_rows_beside_the_choices_come_before_those_of_the_last_first_choice() -> None:
    tops: list[wire.Json] = [{"prompt_logprobs": [{"2": {"logprob": -float(number)}}]} for number in range(3)]
    beside: list[wire.Json] = [{}, tops[2], {"prompt_logprobs": []}]
    for own in beside:
        choices = [{"index": index, "text": "a", **one} for index, one in ((0, tops[0]), (0, tops[1]), (1, tops[2]))]
        payload = json.dumps(wire.completion_body(choices, own)).encode()
        assert repr(read_body(payload, typed=True)) == repr(read_body(payload, typed=False))


def test_the_message_of_a_whole_chat_counts_if_there_is_no_delta() -> None:
    for delta in ({"content": "b"}, {}, None):
        choice = {"index": 0, "message": {"content": "a"}, "delta": delta, "token_ids": [1]}
        payload = json.dumps(wire.completion_body([choice], {})).encode()
        assert read_body(payload, typed=True) == read_body(payload, typed=False)


@pytest.mark.parametrize("held", [0, 1 << 17])
@pytest.mark.parametrize("second", [USUAL[1], USUAL[1].replace(b'["token_id:12"]', b'["token_id:13"]')])
def test_rows_that_begin_late_or_go_astray_belong_to_no_other_token(
    held: int, second: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_HELD", held)
    bare = wire.sse(wire.completion_chunk([11], text="a"))
    for stream in (
        [bare, second, USUAL[2]],
        [USUAL[0], second, USUAL[2]],
        [USUAL[0], bare, second, USUAL[2], USUAL[1]],
    ):
        assert read(stream, typed=True) == read(stream, typed=False)


BOTH = json.loads(USUAL[1][6:])["choices"] + wire.completion_chunk([21, 22], index=1, text="z")["choices"]


@pytest.mark.parametrize("held", [0, 1 << 17])
@pytest.mark.parametrize(
    "stream",
    [
        [USUAL[0][:-1], USUAL[1], USUAL[2]],
        [USUAL[0][:-2], USUAL[1], USUAL[2]],
        [USUAL[0] + USUAL[1][:9], USUAL[1][9:], USUAL[2]],
        [USUAL[0], wire.sse(wire.completion_body(BOTH, {})), USUAL[2], wire.DONE],
        [*USUAL, wire.DONE, wire.sse(wire.usage(2, 3)), USUAL[1]],
    ],
)
def test_a_stream_that_is_read_in_parts(stream: list[bytes], held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_HELD", held)
    assert read(stream, typed=True) == read(stream, typed=False)


def test_the_time_of_an_event_is_that_of_the_read_with_its_last_byte() -> None:
    for cut in range(1, len(USUAL[0]) + 1):
        reads = [USUAL[0][:cut], USUAL[0][cut:] + USUAL[1][:-1], USUAL[1][-1:] + USUAL[2]]
        times = read(reads, typed=True)[0].token_times
        assert times == ((0.0 if cut == len(USUAL[0]) else 1.0), 2.0, 2.0)


def test_little_is_held_of_a_stream_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_HELD", 1000)
    answer = Answer()
    stream = events.EventStream(answer)
    for number in range(300):
        stream.feed([USUAL[1]], float(number))
        assert sum(map(len, stream._pieces)) <= 1000
    assert len(answer.token_times) > 290


def test_garbage_collection_is_as_before() -> None:
    for was_on in (False, True):
        (gc.enable if was_on else gc.disable)()
        read(USUAL, typed=True)
        assert gc.isenabled() is was_on


@pytest.mark.parametrize("writer", WRITERS.values())
def test_many_of_these_answers_are_read_at_once(writer: Writer) -> None:
    """Otherwise the comparison would compare one reader with itself. How many are, depends on what Hypothesis draws."""
    of_streams: list[bool] = []
    of_bodies: list[bool] = []

    @settings(max_examples=60, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(streams(writer), bodies(writer))
    def collect(reads: list[bytes], body: bytes) -> None:
        of_streams.append(chunks.read([b"".join(reads)], [1.0]) is not None)
        of_bodies.append(chunks.read_body(body) is not None)

    collect()
    assert sum(of_streams) > 0.1 * len(of_streams)
    assert sum(of_bodies) > 0.1 * len(of_bodies)


@MANY
@given(st.lists(IDS, min_size=1, max_size=5).flatmap(lambda ids: st.tuples(st.just(ids), rows(ids))))
def test_columns_are_the_rows(found: tuple[list[int], wire.Json]) -> None:
    token_ids, written = found
    tops = [top or {} for top in written["top_logprobs"] or [None] * len(token_ids)]
    names, values = [name for top in tops for name in top], [value for top in tops for value in top.values()]
    flat = Rows(
        written["tokens"], written["token_logprobs"], [len(top) for top in tops], names, values, may_repeat=False
    )
    made = token_logprobs(token_ids, flat)
    assert repr(made) == repr([row.of(token) for row, token in zip(read_rows(written), token_ids, strict=True)])
