"""Reading many events at once gives what reading them one by one gives, whatever the stream holds."""

import gc
import json
from itertools import pairwise
from typing import Any

import load_wire as wire
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.history import Ended
from harness.load.answers import chunks, events
from harness.load.answers.answer import Answer
from harness.load.answers.columns import token_logprobs
from harness.load.answers.logprobs import read_rows
from harness.load.answers.outcome import Reply, conclude
from harness.load.answers.receiver import Receiver
from harness.scenario import Request, Sampling

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- streams: mostly what vLLM writes, with anything odd in between ---

IDS = st.integers(0, 20)
NUMBERS = st.one_of(st.floats(-20, 0), st.integers(-3, 0), st.sampled_from([-9999.0, -0.0, 1.5, 2**53, 2**53 + 1]))
TOPS = st.dictionaries(IDS.map(lambda one: f"token_id:{one}"), NUMBERS, min_size=1, max_size=5)


@st.composite
def rows(draw: st.DrawFn, token_ids: list[int]) -> wire.Json:
    """One row for each token, whose alternatives are usually as vLLM orders them."""
    own = [draw(NUMBERS) for _ in token_ids]
    width = draw(st.integers(1, 5))
    tops = []
    for token, value in zip(token_ids, own, strict=True):
        others = [(f"token_id:{token + 1 + rank}", value - 1 - rank) for rank in range(width - 1)]
        usual = {f"token_id:{token}": value, **dict(others)}
        equal = dict.fromkeys(usual, value)
        odd = [draw(TOPS), dict(reversed(usual.items())), equal, dict(reversed(equal.items())), None, {}]
        tops.append(draw(st.sampled_from([usual] * 6 + odd)))
    return {
        "text_offset": [0] * len(own),
        "token_logprobs": own,
        "tokens": [f"token_id:{token}" for token in token_ids],
        "top_logprobs": draw(st.sampled_from([tops, tops, tops, None])),
    }


ODD = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 1.0, "", "x", [], {}, [1], [None], [[]], {"a": 1}, 1 << 31, 1 << 64, 10**400),
        *(float("nan"), float("inf"), "token_id:11", "token_id:0011", "token_id:\u0661", "\ud800", "ä", "\n", "[DONE]"),
        *([1.0], [True], [-1], {"prompt_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": 2}),
        *({"message": "x"}, {"cached_tokens": 1}, {"cached_tokens": -1}, {"content": None}, [{"index": 0}]),
    ]
)
FIELDS = [
    *("choices", "usage", "error", "errors", "detail", "message", "prompt_token_ids", "prompt_logprobs", "index"),
    *("text", "delta", "token_ids", "logprobs", "finish_reason", "stop_reason", "content", "tokens", "top_logprobs"),
    *("token_logprobs", "text_offset", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "id", "unknown"),
]


def bent(message: Any, draw: st.DrawFn) -> Any:
    """The message with one value, however deep, replaced or added."""
    if isinstance(message, dict) and message:
        key = draw(st.sampled_from([*message, *FIELDS]))
        deeper = key in message and draw(st.booleans())
        return {**message, key: bent(message[key], draw) if deeper else draw(ODD)}
    if isinstance(message, list) and message:
        at = draw(st.integers(0, len(message) - 1))
        return [*message[:at], bent(message[at], draw), *message[at + 1 :]]
    return draw(ODD)


@st.composite
def chunk(draw: st.DrawFn, with_rows: bool) -> wire.Json:
    """A chunk of a completion as vLLM writes it."""
    token_ids = draw(st.lists(IDS, max_size=3))
    fields: dict[str, Any] = {}
    if with_rows:
        fields["logprobs"] = draw(rows(token_ids))
    if draw(st.integers(0, 3)) == 0:
        fields["prompt_token_ids"] = draw(st.lists(IDS, max_size=4))
    if draw(st.integers(0, 3)) == 0:
        fields["stop_reason"] = draw(st.sampled_from([7, "x", 0, ""]))
    finish = draw(st.sampled_from([None, None, None, "length", "stop", "abort", ""]))
    text = draw(st.sampled_from(["a", " word", "", "ä日\U0001f600", 'q"\\\n', "data: x", "\x7f"]))
    index = draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
    return wire.completion_chunk(token_ids, text=text, index=index, finish=finish, **fields)


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])
ELSEWHERE = [
    b'{"choices":[],"unknown":[{"index":0,"text":"a","token_ids":[1]}]}',
    b'{"choices" :[],"unknown":{"choices":[{"index":0,"text":"a","token_ids":[1]}]}}',
    b'{"unknown":{"choices":[{"index":0,"text":"a","token_ids":[1]}]},"choices":[]}',
    b'{"unknown":{"choices":[{"index":0,"text":"a","token_ids":[1]}]},"choices":null}',
    b'{"choices":[{"index":0,"text":"a","token_ids":[1]}],"unknown":[]}',
    b'{"choices":[{"index":0,"text":"a","token_ids":[1]}],"choices":[]}',
]
"""Chunks with a choice in a place where it is none, or beside another list."""
USAGE = st.builds(wire.usage, IDS, IDS)
DETAILS = st.sampled_from([None, {}, {"cached_tokens": 3}, {"cached_tokens": None}, {"cached_tokens": 0}])


@st.composite
def event(draw: st.DrawFn, usual: bool, with_rows: bool, separators: tuple[str, str] | None = None) -> bytes:
    """One event with its end: one that vLLM may write, or in four of ten cases another one if not ``usual``.

    ``separators``: what stands between the items and keys of its JSON; None: drawn.
    """
    kind = draw(st.integers(13, 20) if usual else st.integers(4, 20))
    message: Any = draw(USAGE if kind == 20 else chunk(with_rows))
    if kind == 4:
        message["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": draw(DETAILS)}
    if kind == 5:
        message = bent(message, draw)
    if kind == 6:
        message["choices"] = [*message["choices"], *draw(chunk(with_rows))["choices"]]
    text = json.dumps(message, ensure_ascii=kind != 7, separators=separators or draw(SEPARATORS))
    payload = text.encode("utf-8", "surrogatepass")
    if kind == 8:
        at = draw(st.integers(0, len(payload)))
        junk = draw(
            st.sampled_from([b"\xff", b"\n", b"\r", b" ", b"\x00", b"9", b"-0", b"\xed\xa0\x80", b"}", b",", b'"'])
        )
        payload = payload[:at] + junk + payload[at + draw(st.integers(0, 2)) :]
    if kind == 9:
        extra = draw(st.sampled_from([b"1" * 5000, b"1e999", b"-0", b"NaN", b"[" * 50 + b"]" * 50, b'"\xff"', b"01"]))
        payload = b'{"unknown":' + extra + b"," + payload[1:]
    if kind == 10:
        odd = [b"[DONE]", b" [DONE]", b"", b"{}", b"[]", b"null", b'{"choices":[]}', b"x", *ELSEWHERE]
        payload = draw(st.sampled_from(odd))
    start = draw(st.sampled_from([b"data:", b": ping\ndata: ", b"", b"event: e\ndata: "])) if kind == 11 else b"data: "
    end = draw(st.sampled_from([b"\r\n\r\n", b"\r\r", b"\n", b"\n\n\n", b"", b"\n \n"])) if kind == 12 else b"\n\n"
    return start + payload + end


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The reads of a stream, which end with events or anywhere."""
    # Log-probabilities are in all chunks or in none, unless the stream is odd.
    rows_too = draw(st.booleans())
    usual = draw(st.sampled_from([True, True, False]))
    separators = draw(SEPARATORS)
    some = event(usual, rows_too, separators) if usual else st.one_of(*(event(usual, one) for one in (False, rows_too)))
    found = draw(st.lists(some, min_size=1, max_size=12))
    found += draw(st.sampled_from([[b"data: [DONE]\n\n"]] * 4 + [[], [b"data: [DONE]"], [b"data: [DONE]\n\n"] * 2]))
    found += draw(st.lists(some, max_size=1)) if draw(st.integers(0, 9)) == 0 else []
    if draw(st.booleans()):
        return found
    whole = b"".join(found)
    cuts = draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    return [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


def read(reads: list[bytes], *, typed: bool, ends: bool = True) -> tuple[Ended, str]:
    request, reply, answer = Request("r", (1, 2), Sampling(3)), Reply(), Answer()
    receiver = Receiver(request, reply, answer, typed=typed)
    feed = receiver.head(200, {"content-type": "text/event-stream"})
    for at, data in enumerate(reads):
        feed([data], float(at))
    if ends:
        receiver.end(99.0)
    else:
        receiver.cut()
    return conclude(request, reply, answer, 99.0), answer.stray_text


@MANY
@given(streams(), st.booleans(), st.sampled_from([1 << 17, 0, 300]))
def test_both_readers_give_the_same(reads: list[bytes], ends: bool, held: int) -> None:
    """Also when a stream is read in parts, some of them at once and some one by one. NaN is compared by its text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "MOST_HELD", held)
        assert repr(read(reads, typed=True, ends=ends)) == repr(read(reads, typed=False, ends=ends))


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


def test_many_of_these_streams_are_read_at_once() -> None:
    """Otherwise the comparison would compare one reader with itself."""
    found: list[bool] = []

    @settings(max_examples=60, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(streams())
    def collect(reads: list[bytes]) -> None:
        found.append(chunks.read([b"".join(reads)], [1.0]) is not None)

    collect()
    assert sum(found) > 0.3 * len(found)


@MANY
@given(st.lists(IDS, min_size=1, max_size=5).flatmap(lambda ids: st.tuples(st.just(ids), rows(ids))))
def test_columns_are_the_rows(found: tuple[list[int], wire.Json]) -> None:
    token_ids, written = found
    tops = written["top_logprobs"] or [None] * len(token_ids)
    made = token_logprobs(token_ids, written["tokens"], written["token_logprobs"], tops)
    assert repr(made) == repr([row.of(token) for row, token in zip(read_rows(written), token_ids, strict=True)])
