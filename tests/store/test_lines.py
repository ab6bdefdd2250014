"""The fast road and the careful one write and read the same, and ordinary entries take the fast one."""

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.history import Choice, Ended, Ending, Outcome, Sent, TokenLogprob, Usage
from harness.scenario import Message, Purpose, Request, Sampling
from harness.store.codec import decode, dumps, parse_json
from harness.store.lines import read_fields, read_line, write_line
from harness.store.readers import MalformedError

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENTRIES = st.from_type(Sent) | st.from_type(Ended)
ODD: list[Any] = [
    *(None, True, -1, 0, 2**63, -(10**400), 1.5, 1e999, "nan", "inf", "-inf", "", "\x1b[31m", "ok", "unrecorded"),
    *([], {}, [[]], {"kind": []}, [None], ["a"], {"a": {"b": 1}}, [[1, 2.0]], [{"role": "user", "content": ""}]),
]


def looks(entry: object) -> str:
    """A text that, unlike equality, distinguishes 1 from 1.0 and equates NaN with NaN. The sign of 0.0 is ignored."""
    return repr(entry).replace("-0.0", "0.0")


def kind_of(entry: Sent | Ended) -> str:
    return "ended" if isinstance(entry, Ended) else "sent"


def carefully_written(entry: Sent | Ended) -> bytes:
    return dumps(entry, {"kind": kind_of(entry)}).encode()


def carefully_read(line: bytes) -> Sent | Ended:
    """What the codec reads; as a float, it takes any integer of ordinary size."""
    content = parse_json(line)
    if not isinstance(content, dict) or content.get("kind") not in ("sent", "ended"):
        raise MalformedError("it is of another kind")
    kinds: dict[str, type[Sent | Ended]] = {"sent": Sent, "ended": Ended}
    return decode(kinds[content.pop("kind")], content)


def load_sent() -> Sent:
    sampling = Sampling(max_tokens=128, ignore_eos=True, logprobs=5)
    return Sent(1.5, Request("load-7", tuple(range(300, 500)), sampling, cache_salt="run"), "load", "load", 1.25)


def load_ended() -> Ended:
    tokens = tuple(range(1000, 1016))
    rows = tuple(TokenLogprob(token, -0.125, -3.0000000000000004, token + 1, -1e-300, 7) for token in tokens)
    return Ended(
        2.5,
        "load-7",
        Outcome.OK,
        status=200,
        choices=(Choice(tokens, "wörter", "length", rows),),
        usage=Usage(200, 16),
        token_times=tuple(1.5 + 0.01 * number for number in range(16)),
        tokens_per_chunk=(1,) * 16,
        prefill_server="http://p",
        first_logprobs=((1000, -0.125), (1001, -3.0)),
        prefill_first=((1000, -0.125),),
    )


def forcing_ended() -> Ended:
    rows = (None, *(TokenLogprob(token, -2.0, -0.5) for token in range(300)), TokenLogprob(5, -1.0))
    return Ended(3.0, "load-7-teacher0", Outcome.OK, status=200, choices=(Choice((1,)),), prompt_logprobs=rows)


@given(entry=ENTRIES)
@QUIET
@example(entry=replace(load_ended(), cause="null"))
@example(entry=replace(load_ended(), token_times=(math.nan,)))
@example(entry=replace(forcing_ended(), first_logprobs=((1, math.inf),)))
@example(entry=replace(load_sent(), request=Request("a", (Message("user", "hi"),))))
@example(entry=replace(load_sent(), request=Request("\ud800", "")))
def test_whatever_the_fast_road_writes_the_careful_one_reads(entry: Sent | Ended) -> None:
    line = write_line(entry)
    if line is not None:
        assert b"\n" not in line
        assert looks(decode(type(entry), _untagged(line))) == looks(entry)


def _untagged(line: bytes) -> object:
    content = json.loads(line)
    return {name: value for name, value in content.items() if name != "kind"}


@given(entry=ENTRIES)
@QUIET
def test_whatever_the_careful_road_writes_the_fast_one_reads_or_leaves(entry: Sent | Ended) -> None:
    found = read_line(carefully_written(entry))
    assert found is None or looks(found) == looks(entry)


@pytest.mark.parametrize("entry", [load_sent(), load_ended(), forcing_ended()], ids=["sent", "ended", "forcing"])
def test_ordinary_entries_take_the_fast_road_both_ways(entry: Sent | Ended) -> None:
    assert write_line(entry) is not None
    assert read_line(write_line(entry) or b"") == read_line(carefully_written(entry)) == entry


def _changed(value: Any, chance: random.Random) -> Any:
    """The value with an odd one, a lost one or a new one somewhere in it."""
    inner = [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else []
    if not inner or chance.random() < 0.1:
        return chance.choice(ODD)
    copy, (key, item) = (dict(value) if isinstance(value, dict) else list(value)), chance.choice(inner)
    kind = chance.choice(["inside", "inside", "inside", "lost", "new"])
    if kind == "inside":
        copy[key] = _changed(item, chance)
    elif kind == "lost":
        del copy[key]
    elif isinstance(copy, dict):
        copy[chance.choice(["mood", "kind", "ending", "choices"])] = chance.choice(ODD)
    else:
        copy.append(chance.choice(ODD))
    return copy


@given(entry=st.sampled_from([load_sent(), load_ended(), forcing_ended()]), seed=st.integers(0, 2**32))
@settings(QUIET, max_examples=1500)
def test_what_the_fast_road_reads_of_a_damaged_line_the_careful_one_reads_too(entry: Sent | Ended, seed: int) -> None:
    """Otherwise a damaged history could be judged that ought to be refused."""
    chance = random.Random(seed)  # noqa: S311 - a test's
    content = _changed(json.loads(carefully_written(entry)), chance)
    line = json.dumps(content, separators=(",", ":")).encode()
    if chance.random() < 0.3:
        place = chance.randrange(len(line))
        line = line[:place] + bytes([chance.randrange(256)]) + line[place + 1 :]
    found = read_line(line)
    assert found is None or looks(found) == looks(carefully_read(line))


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"ended","at":2.0,"request_id":"a","outcome":"info","cause":"cut: reset"}',
        b'{"kind":"ended","at":2.0,"request_id":"a","outcome":"ok","ending":"unrecorded"}',
        (
            b'{"kind":"sent","at":2.0,"request":{"request_id":"a","prompt":[1],"reference_for":"b"},"scenario":"s",'
            b'"phase":"p","intended_at":1.0}'
        ),
        b'{"kind":"noted","at":1.0,"text":"a"}',
        b'{"kind":"ended","at":2.0,"request_id":"a","outcome":"ok","ending":"completed","status":9223372036854775808}',
        (
            b'{"kind":"ended","at":2.0,"request_id":"a","outcome":"ok","ending":"completed",'
            b'"prompt_logprobs":[[9223372036854775808,-1.0]]}'
        ),
        b'{"kind":"ended","at":2.0,"request_id":"a","outcome":"ok","ending":"completed","mood":"b"}',
        b"[" * 100_000,
    ],
    ids=["no-ending", "ending-unrecorded", "no-purpose", "another-kind", "65-bits", "65-bit-id", "unknown", "deep"],
)
def test_lines_of_earlier_versions_damaged_ones_and_other_kinds_are_left_to_the_careful_road(line: bytes) -> None:
    assert read_line(line) is None


@given(entry=ENTRIES)
@QUIET
def test_a_field_that_is_read_alone_is_that_of_the_whole_entry(entry: Sent | Ended) -> None:
    line = write_line(entry)
    if line is not None and (whole := read_line(line)) is not None:
        for name in ("prompt",) if isinstance(whole, Sent) else ("choices", "prompt_logprobs", "token_times"):
            value = whole.request.prompt if isinstance(whole, Sent) else getattr(whole, name)
            assert looks(read_fields(line, (name,))[name]) == looks(value)


def test_equal_texts_of_entries_are_one_object() -> None:
    """A run has hundreds of thousands of operations, and few phases, salts and servers."""
    sent, ended = (read_line(carefully_written(entry)) for entry in (load_sent(), load_ended()))
    again = read_line(carefully_written(load_sent()))
    assert isinstance(sent, Sent)
    assert isinstance(again, Sent)
    assert isinstance(ended, Ended)
    assert sent.request.request_id is ended.request_id
    assert sent.phase is again.phase
    assert sent.request.sampling is again.request.sampling
    assert sent.request.purpose is Purpose.LOAD
    assert ended.ending is Ending.COMPLETED
