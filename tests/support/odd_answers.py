"""Streams and whole answers of both endpoints: mostly what vLLM writes, with anything odd in between."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import load_wire as wire
from hypothesis import strategies as st

from harness.history import Ended
from harness.load.answers.answer import Answer
from harness.load.answers.outcome import Reply, conclude
from harness.load.answers.receiver import Receiver
from harness.scenario import Request, Sampling

IDS = st.integers(0, 20)
NUMBERS = st.one_of(st.floats(-20, 0), st.integers(-3, 0), st.sampled_from([-9999.0, -0.0, 1.5, 2**53, 2**53 + 1]))
Writer = Callable[[bool], st.SearchStrategy[wire.Json]]
"""Makes messages of an endpoint, with or without log-probabilities."""

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


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 1.0, "", "x", [], {}, [1], [None], [[]], {"a": 1}, 1 << 31, 1 << 64, 10**400),
        *(float("nan"), float("inf"), "token_id:11", "token_id:0011", "token_id:\u0661", "\ud800", "ä", "\n", "[DONE]"),
        *([1.0], [True], [-1], {"prompt_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": 2}),
        *({"content": "x"}, {"content": 1}, {"role": "x"}, {"token": "token_id:1", "logprob": -1}, {"text": "x"}),
        *({"message": "x"}, {"cached_tokens": 1}, {"cached_tokens": -1}, {"content": None}, [{"index": 0}]),
    ]
)
FIELDS = [
    *("choices", "usage", "error", "errors", "detail", "message", "prompt_token_ids", "prompt_logprobs", "index"),
    *("text", "delta", "token_ids", "logprobs", "finish_reason", "stop_reason", "content", "tokens", "top_logprobs"),
    *("token_logprobs", "text_offset", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "id", "unknown"),
    *("token", "logprob", "bytes", "role", "reasoning", "tool_calls", "prompt_text", "kv_transfer_params"),
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


FINISH = st.sampled_from([None, None, None, "length", "stop", "abort", ""])
TEXT = st.sampled_from(["a", " word", "", "ä日\U0001f600", 'q"\\\n', "data: x", "\x7f", '"delta":', '"message":'])
INDEX = st.sampled_from([0, 0, 0, 0, 1, 2])


@st.composite
def completion_chunk(draw: st.DrawFn, with_rows: bool) -> wire.Json:
    """A chunk of a completion as vLLM writes it."""
    token_ids = draw(st.lists(IDS, max_size=3))
    fields: dict[str, Any] = {}
    if with_rows:
        fields["logprobs"] = draw(rows(token_ids))
    if draw(st.integers(0, 3)) == 0:
        fields["prompt_token_ids"] = draw(st.lists(IDS, max_size=4))
    if draw(st.integers(0, 3)) == 0:
        fields["stop_reason"] = draw(st.sampled_from([7, "x", 0, ""]))
    return wire.completion_chunk(token_ids, text=draw(TEXT), index=draw(INDEX), finish=draw(FINISH), **fields)


@st.composite
def chat_rows(draw: st.DrawFn, token_ids: list[int]) -> wire.Json:
    """The same rows as a chat has them; rarely, one lacks a field or repeats an alternative."""
    written = draw(rows(token_ids))
    tops = written["top_logprobs"] or [None] * len(token_ids)
    content = []
    for name, value, top in zip(written["tokens"], written["token_logprobs"], tops, strict=True):
        others = [{"token": one, "logprob": number, "bytes": [116, 200]} for one, number in (top or {}).items()]
        usual = {"token": name, "logprob": value, "bytes": [116], "top_logprobs": others}
        twice = {**usual, "top_logprobs": [*others, *others[:1]]}
        lower = {**usual, "top_logprobs": [*others, {"token": name, "logprob": -30.0}]}
        bare = {"token": name, "bytes": None}
        odd = [twice, lower, bare, {**bare, "logprob": value}, {**usual, "top_logprobs": None}]
        content.append(draw(st.sampled_from([usual] * 8 + odd)))
    return {"content": draw(st.sampled_from([content] * 9 + [None]))}


DELTAS = st.sampled_from(
    [
        *({}, {"role": "assistant"}, {"content": None}, {"role": "assistant", "content": ""}, {"reasoning": "hm"}),
        {"reasoning_content": "hm", "content": "x"},
        {"tool_calls": [{"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{"}}]},
    ]
)


@st.composite
def chat_chunk(draw: st.DrawFn, with_rows: bool) -> wire.Json:
    """A chunk of a chat as vLLM writes it: of its role, or of its tokens."""
    if draw(st.integers(0, 7)) == 0:
        message = wire.chat_role_chunk(draw(st.lists(IDS, max_size=4)), index=draw(INDEX))
        return {**message, **draw(st.sampled_from([{}, {"prompt_text": None}, {"kv_transfer_params": {"a": [1]}}]))}
    token_ids = draw(st.lists(IDS, max_size=3))
    fields: dict[str, Any] = {}
    if with_rows:
        fields["logprobs"] = draw(chat_rows(token_ids))
    if draw(st.integers(0, 3)) == 0:
        fields["stop_reason"] = draw(st.sampled_from([7, "x", 0, ""]))
    if draw(st.integers(0, 3)) == 0:
        fields["delta"] = draw(DELTAS)
    return wire.chat_chunk(token_ids, text=draw(TEXT), index=draw(INDEX), finish=draw(FINISH), **fields)


WRITERS: dict[str, Writer] = {"completions": completion_chunk, "chat": chat_chunk}
"""What writes the chunks of each endpoint."""


@st.composite
def mixed_chunk(draw: st.DrawFn, with_rows: bool) -> wire.Json:
    """A chunk of either endpoint."""
    return draw(WRITERS[draw(st.sampled_from([*WRITERS]))](with_rows))


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])
ELSEWHERE = [
    b'{"choices":[],"unknown":[{"index":0,"text":"a","token_ids":[1]}]}',
    b'{"choices" :[],"unknown":{"choices":[{"index":0,"text":"a","token_ids":[1]}]}}',
    b'{"unknown":{"choices":[{"index":0,"text":"a","token_ids":[1]}]},"choices":[]}',
    b'{"unknown":{"choices":[{"index":0,"text":"a","token_ids":[1]}]},"choices":null}',
    b'{"choices":[{"index":0,"text":"a","token_ids":[1]}],"unknown":[]}',
    b'{"choices":[{"index":0,"text":"a","token_ids":[1]}],"choices":[]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"token_ids":[1]}],"unknown":[]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"text":"b","token_ids":[1]}]}',
    b'{"choices":[{"index":0,"delta":{},"message":{"content":"b"},"token_ids":[1]}]}',
    b'{"choices":[{"index":0,"delta":null,"message":{"content":"b"},"token_ids":[1]}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"prompt_token_ids":[3]}],"prompt_token_ids":[4,5]}',
    b'{"choices":[{"index":0,"text":"a","prompt_token_ids":[3]}],"prompt_token_ids":[4,5]}',
    b'{"choices":[{"index":0,"text":"a","prompt_token_ids":[3]}],"prompt_token_ids":[]}',
]
"""Chunks with a choice in a place where it is none or beside another list, or with one field in two places."""
USAGE = st.builds(wire.usage, IDS, IDS)
DETAILS = st.sampled_from([None, {}, {"cached_tokens": 3}, {"cached_tokens": None}, {"cached_tokens": 0}])


@st.composite
def event(
    draw: st.DrawFn, chunk: Writer, usual: bool, with_rows: bool, separators: tuple[str, str] | None = None
) -> bytes:
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
def streams(draw: st.DrawFn, chunk: Writer) -> list[bytes]:
    """The reads of a stream, which end with events or anywhere."""
    # Log-probabilities are in all chunks or in none, unless the stream is odd.
    rows_too = draw(st.booleans())
    usual = draw(st.sampled_from([True, True, False]))
    separators = draw(SEPARATORS)
    if usual:
        some = event(chunk, usual, rows_too, separators)
    else:
        some = st.one_of(*(event(chunk, usual, one) for one in (False, rows_too)))
    found = draw(st.lists(some, min_size=1, max_size=12))
    found += draw(st.sampled_from([[b"data: [DONE]\n\n"]] * 4 + [[], [b"data: [DONE]"], [b"data: [DONE]\n\n"] * 2]))
    found += draw(st.lists(some, max_size=1)) if draw(st.integers(0, 9)) == 0 else []
    if draw(st.booleans()):
        return found
    whole = b"".join(found)
    cuts = draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    return [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


@st.composite
def plain_streams(draw: st.DrawFn, endpoint: str) -> list[bytes]:
    """Streams whose events are all plain but for the first, the last, and rarely one between them."""
    chunk, plain = WRITERS[endpoint], wire.chat_chunk if endpoint == "chat" else wire.completion_chunk
    index = draw(st.sampled_from([0, 0, 0, 0, 1]))
    texts = draw(st.lists(st.sampled_from(["a", "", "ä", 'q"\n']), max_size=6))
    between = [plain([number], text=text, index=index) for number, text in enumerate(texts)]
    if between and draw(st.integers(0, 3)) == 0:
        between[draw(st.integers(0, len(between) - 1))] = draw(chunk(draw(st.booleans())))
    ends = [draw(chunk(with_rows)) for with_rows in (False, False)]
    roles = [wire.chat_role_chunk([1, 2, 3], index) for index in range(draw(st.integers(0, 2)))]
    messages = [*roles, ends[0], *between, ends[1], *([wire.usage(2, 3)] if draw(st.booleans()) else [])]
    return [*map(wire.sse, messages), wire.DONE]


PROMPT_ROWS = st.lists(
    st.one_of(
        st.none(),
        st.dictionaries(
            IDS.map(str),
            st.builds(lambda number: {"logprob": number, "rank": 1, "decoded_token": "x"}, NUMBERS),
            min_size=1,
            max_size=3,
        ),
    ),
    max_size=4,
)


@st.composite
def bodies(draw: st.DrawFn, chunk: Writer) -> bytes:
    """A whole answer: usually what vLLM writes, else with one value replaced, or with odd bytes."""
    with_rows = draw(st.booleans())
    message: Any = draw(chunk(with_rows))
    message["choices"] = [one for _ in range(draw(st.integers(1, 3))) for one in draw(chunk(with_rows))["choices"]]
    for choice in message["choices"]:
        if "delta" in choice and draw(st.integers(0, 9)):
            choice["message"] = choice.pop("delta")
    message["usage"] = draw(USAGE)["usage"]
    for holder in draw(st.lists(st.sampled_from([message, message["choices"][0]]), max_size=2)):
        holder["prompt_logprobs"] = draw(PROMPT_ROWS)
        holder["prompt_token_ids"] = draw(st.one_of(st.none(), st.lists(IDS, max_size=4)))
    kind = draw(st.integers(0, 9))
    message = bent(message, draw) if kind == 0 else message
    payload = json.dumps(message, separators=draw(SEPARATORS)).encode()
    if kind == 1:
        at = draw(st.integers(0, len(payload)))
        junk = draw(st.sampled_from([b"\xff", b"\n", b" ", b"\x00", b"9", b"}", b",", b"\xef\xbb\xbf"]))
        payload = payload[:at] + junk + payload[at + draw(st.integers(0, 2)) :]
    if kind == 2:
        extra = draw(st.sampled_from([b"1" * 5000, b"1e999", b"NaN", b'"\\ud800"', b'"\xff"', b"1" * 40]))
        payload = b'{"unknown":' + extra + b"," + payload[1:]
    return payload


def read(reads: list[bytes], *, typed: bool, ends: bool = True) -> tuple[Ended, str]:
    """How a request ended whose answer came in these reads, and the stray text in it."""
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


def read_body(payload: bytes, *, typed: bool) -> tuple[Ended, str]:
    """How a request ended whose answer was not streamed, and the stray text in it."""
    request, reply, answer = Request("r", (1, 2), Sampling(3), stream=False), Reply(), Answer()
    receiver = Receiver(request, reply, answer, typed=typed)
    receiver.head(200, {"content-type": "application/json"})([payload], 1.0)
    receiver.end(2.0)
    return conclude(request, reply, answer, 99.0), answer.stray_text
