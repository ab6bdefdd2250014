"""The event parser: the same events however the bytes are split."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.answers.sse import EventParser

PIECES = st.sampled_from(
    [
        b"data: x",
        b"data:",
        b"data",
        b"data:  y ",
        b": keep-alive",
        b"event: e",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"",
        b"z",
    ]
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


def by_lines(stream: bytes) -> list[bytes]:
    """The standard's algorithm for a complete stream: line by line, dispatching an event at an empty line."""
    *lines, _unended = re.split(rb"\r\n|\n|\r", stream)
    events: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        if not line:
            events += [b"\n".join(data)] if data else []
            data = []
        elif (match := re.fullmatch(rb"data(?:: ?(.*))?", line, re.DOTALL)) is not None:
            data.append(match[1] or b"")
    return events


def parsed(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@given(STREAMS, st.data())
def test_splitting_changes_nothing(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert parsed(*pieces) == by_lines(stream)


@given(STREAMS)
def test_byte_by_byte_the_parser_follows_the_standards_algorithm(stream: bytes) -> None:
    assert parsed(*(stream[at : at + 1] for at in range(len(stream)))) == by_lines(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'data: {"a": 1}\n\ndata: [DONE]\n\n', [b'{"a": 1}', b"[DONE]"]),
        (b"data:no space\n\n", [b"no space"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b": keep-alive\n\ndata: x\n\n", [b"x"]),
        (b": note\ndata: x\n\n", [b"x"]),
        (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
        (b"event: error\ndata: x\r\n\r\n", [b"x"]),
        (b"data: x\r\r", [b"x"]),
        (b"dataset: x\n\n", []),
        (b"data: never ended\n", []),
    ],
)
def test_lines_are_parsed_into_events(stream: bytes, events: list[bytes]) -> None:
    assert parsed(stream) == events


def test_an_event_without_its_empty_line_is_kept_as_unended() -> None:
    parser = EventParser()
    parser.feed(b"data: x\n\ndata: y")
    assert parser.unended == b"y"
    parser.feed(b"\n\n")
    assert parser.unended is None
