"""Traces, ShareGPT conversations, and sessions in custom datasets."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server
from harness.loads import DatasetLoad, ShareGptLoad, Steady, TraceLoad
from harness.loads.dataset import read_lines, write_lines
from harness.scenario import Phase, Request

DEPLOYMENT = Deployment(
    servers=(Server("prefill-0", Role.PREFILL, "http://p"), Server("decode-0", Role.DECODE, "http://d")),
    proxy_url="http://x",
    model="m",
    vocab_size=500,
    special_token_ids=(0, 1, 2),
)


def phase(load: Any, deployment: Deployment = DEPLOYMENT) -> Phase:
    (found,) = load.scenario(deployment, "salt").phases
    assert isinstance(found, Phase)
    return found


def ids(request: Request) -> tuple[int, ...]:
    return tuple(token for token in request.prompt if isinstance(token, int))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Sequence[Any]], Path]:
    def writing(lines: Sequence[Any]) -> Path:
        path = tmp_path / "dataset"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    return writing


Write = Callable[[Sequence[Any]], Path]


def line(at: float, prompt: int, hash_ids: list[int], answer: int = 5) -> dict[str, Any]:
    return {"timestamp": at, "input_length": prompt, "output_length": answer, "hash_ids": hash_ids}


# --- traces ---


def test_a_trace_has_its_times_lengths_and_shared_blocks(write: Write) -> None:
    path = write([line(3000, 1000, [7, 8]), line(3500, 1536, [7, 8, 9], 6), line(5000, 600, [8, 7])])
    found = phase(TraceLoad(path=path))
    one, two, swapped = map(ids, found.requests)
    assert found.due == (0.0, 0.5, 2.0), "seconds after the first"
    assert [len(prompt) for prompt in (one, two, swapped)] == [1000, 1536, 600]
    assert [request.sampling.max_tokens for request in found.requests] == [5, 6, 5]
    assert one == two[:1000], "a block that is cut off has the same tokens"
    assert swapped == (*two[512:1024], *two[:88])
    assert len({two[at : at + 512] for at in (0, 512, 1024)}) == 3
    assert found.concurrency == 3, "no limit"


def test_tokens_beyond_the_ids_are_each_requests_own(write: Write) -> None:
    found = phase(TraceLoad(path=write([line(0, 1300, [7]), line(1, 1300, [7]), line(2, 40, [])])))
    one, two, three = map(ids, found.requests)
    assert one[:512] == two[:512]
    assert one[512:600] != two[512:600]
    assert (len(one), len(two), len(three)) == (1300, 1300, 40)


def test_other_block_sizes_and_speeds(write: Write) -> None:
    found = phase(TraceLoad(path=write([line(0, 20, [7, 8]), line(900, 12, [7, 9])]), block_size=10, speedup=3.0))
    one, two = map(ids, found.requests)
    assert found.due == (0.0, 0.3)
    assert one[:10] == two[:10]
    assert one[10:12] != two[10:12]


def test_the_seed_decides_the_tokens_of_a_trace(write: Write) -> None:
    path = write([line(0, 64, [7])])
    first, again, other = (ids(phase(TraceLoad(path=path, seed=seed)).requests[0]) for seed in (1, 1, 2))
    assert first == again != other
    assert min(first) > 2, "no special tokens"


def test_a_rate_replaces_the_times_of_a_trace(write: Write) -> None:
    path = write([line(0, 10, []), line(99_000, 10, [])])
    assert phase(TraceLoad(path=path, arrival=Steady(2.0))).due[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ([1], "not a JSON object"),
        ({"input_length": 5, "output_length": 5}, "its timestamp is None"),
        (line(-1, 5, []), "its timestamp is -1"),
        (line(9, 0, []), "its input_length is 0"),
        (line(9, 5, [], 0), "its output_length is 0"),
        (line(9, 5, [-1]), "its hash_ids"),
        (line(9, 512, [1, 2]), "2 hash_ids for a prompt of 512 tokens"),
        (line(4, 5, []), "earlier than that of the line before"),
    ],
)
def test_the_error_about_a_bad_line_of_a_trace_has_its_number(write: Write, bad: Any, why: str) -> None:
    path = write([line(5, 5, []), "", bad])
    with pytest.raises(UsageError) as raised:
        TraceLoad(path=path).demands()
    assert f"{path}, line 3: " in str(raised.value)
    assert why in str(raised.value)


def test_demands_of_a_trace_name_its_lines(write: Write) -> None:
    demands = TraceLoad(path=write([line(0, 9000, []), line(1, 7, [])])).demands()
    assert [(one.prompt_tokens, one.output_tokens) for one in demands] == [(9000, 5), (7, 5)]
    assert demands[1].source.endswith("line 2")


@pytest.mark.parametrize("load", [TraceLoad, ShareGptLoad, DatasetLoad])
def test_a_file_that_does_not_exist(load: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(path=tmp_path / "nothing").demands()


# --- ShareGPT ---


def talk(*texts: str, first: str = "human") -> dict[str, Any]:
    speakers = [first, "gpt" if first == "human" else "human"]
    return {"conversations": [{"from": speakers[n % 2], "value": text} for n, text in enumerate(texts)]}


def words(number: int, word: str = "w") -> str:
    return " ".join([word] * number)


def counted(load: ShareGptLoad) -> ShareGptLoad:
    """The load after a server whose tokens are words has counted them."""
    return load.with_tokens([tuple(range(len(text.split()))) for text in load.texts()])


def sharegpt(write: Write, talks: Sequence[Any], **fields: Any) -> ShareGptLoad:
    return counted(ShareGptLoad(path=write([talks]), **fields))


def test_prompts_are_first_messages_and_answers_as_long_as_those_in_the_file(write: Write) -> None:
    load = sharegpt(write, [talk(words(5, "a"), words(9)), talk(words(6, "b"), words(8), "more", "more")])
    asked = {request.prompt: request.sampling.max_tokens for request in phase(load).requests}
    assert asked == {words(5, "a"): 9, words(6, "b"): 8}
    fixed = sharegpt(write, [talk(words(5, "a"), "x")], output_len=3)
    assert [request.sampling.max_tokens for request in phase(fixed).requests] == [3]


@pytest.mark.parametrize(
    ("prompt", "answer", "fits"),
    [(3, 9, False), (4, 4, True), (9, 3, False), (1024, 1024, True), (1025, 4, False), (1024, 1025, False)],
)
def test_conversations_that_are_too_short_or_too_long_are_left_out(
    write: Write, prompt: int, answer: int, fits: bool
) -> None:
    load = sharegpt(write, [talk(words(5, "a"), words(9)), talk(words(prompt, "b"), words(answer))])
    assert len(phase(load).requests) == 1 + fits


def test_conversations_that_do_not_fit_the_context_are_left_out(write: Write) -> None:
    servers = tuple(replace(server, max_model_len=64) for server in DEPLOYMENT.servers)
    load = sharegpt(write, [talk(words(5), words(9)), talk(words(60), words(9))])
    assert len(phase(load, replace(DEPLOYMENT, servers=servers)).requests) == 1


def test_conversations_come_in_an_order_that_the_seed_decides(write: Write) -> None:
    talks = [talk(words(5, f"w{n}"), words(9)) for n in range(30)]
    orders = [[one.prompt for one in phase(sharegpt(write, talks, seed=seed)).requests] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert set(orders[0]) == set(orders[2])


def test_turns_of_a_session_are_the_persons_messages(write: Write) -> None:
    load = sharegpt(write, [talk(*(words(5, name) for name in "abcdef"))], turns=2)
    first, second = phase(load).requests
    assert (first.prompt, second.prompt) == (words(5, "a"), words(5, "c"))
    assert (first.continues, second.continues) == (None, first.request_id)


def test_malformed_conversations_are_left_out(write: Write) -> None:
    talks = [talk(words(5), words(9)), {}, talk("alone"), talk("", "x"), {"conversations": [1, 2]}, 7]
    assert len(phase(sharegpt(write, talks)).requests) == 1


def test_more_prompts_than_the_file_has_are_refused(write: Write) -> None:
    with pytest.raises(UsageError, match=r"has 1 requests of fitting length, and --num-prompts asks for 2"):
        phase(sharegpt(write, [talk(words(5), words(9))], num_prompts=2))


@pytest.mark.parametrize("content", ["{}", "[]", '[{"conversations": []}]', "["])
def test_a_file_that_is_no_list_of_conversations(write: Write, content: str) -> None:
    with pytest.raises(UsageError, match="It must be of the form"):
        ShareGptLoad(path=write([content])).demands()


def test_without_a_tokenizer_the_length_of_answers_must_be_given(write: Write) -> None:
    path = write([[talk(words(5), words(9))]])
    with pytest.raises(UsageError, match="--sharegpt-output-len"):
        ShareGptLoad(path=path).with_tokens(None)
    assert len(phase(ShareGptLoad(path=path, output_len=4).with_tokens(None)).requests) == 1


# --- sessions in custom datasets ---


def test_lines_that_continue_others_are_turns_of_sessions(write: Write) -> None:
    path = write(
        [
            {"request_id": "a", "prompt": "one"},
            {"request_id": "b", "prompt": "two"},
            {"request_id": "c", "prompt": "three", "continues": "a"},
        ]
    )
    found = phase(DatasetLoad(path=path, think_time=(2.0, 2.0), arrival=Steady(1.0)))
    assert found.think_times == {"c": 2.0}
    assert len(found.due) == 2
    lines = read_lines(path.read_text(), "x")
    assert read_lines(write_lines(lines), "x") == lines


@pytest.mark.parametrize(
    ("continues", "why"), [("z", "no line before has"), ("c", "no line before has"), ("a", "so does line 2")]
)
def test_lines_that_continue_nothing_or_the_same_are_refused(write: Write, continues: str, why: str) -> None:
    lines = [
        {"request_id": "a", "prompt": "one"},
        {"request_id": "b", "prompt": "two", "continues": "a"},
        {"request_id": "c", "prompt": "three", "continues": continues},
    ]
    with pytest.raises(UsageError, match=f"line 3: .*{why}"):
        DatasetLoad(path=write(lines)).demands()


def test_answers_of_all_lines_may_reach_their_limits(write: Write) -> None:
    path = write([{"prompt": "one"}, {"prompt": "two", "ignore_eos": True}])
    said, all_of_them = (phase(DatasetLoad(path=path, ignore_eos=ignore)) for ignore in (False, True))
    assert [one.sampling.ignore_eos for one in said.requests] == [False, True]
    assert [one.sampling.ignore_eos for one in all_of_them.requests] == [True, True]


def test_phases_cannot_be_sent_at_a_rate(write: Write) -> None:
    path = write([{"prompt": "one", "phase": "x"}, {"prompt": "two", "phase": "y"}])
    assert len(DatasetLoad(path=path).scenario(DEPLOYMENT, "s").phases) == 2
    with pytest.raises(UsageError, match="has 2 phases"):
        DatasetLoad(path=path, arrival=Steady(1.0)).scenario(DEPLOYMENT, "s")


def test_lines_with_times_are_an_open_loop(write: Write) -> None:
    lines: list[dict[str, Any]] = [{"prompt": [n, 2], "request_id": f"r{n}", "at": n / 4} for n in range(40)]
    lines.append({"prompt": [7], "continues": "r3"})
    path = write(lines)
    found = phase(DatasetLoad(path=path))
    assert found.due == tuple(n / 4 for n in range(40))
    assert found.concurrency == 41, "nothing holds a request up"
    assert phase(DatasetLoad(path=path, arrival=Steady(80.0))).due[-1] == pytest.approx(0.5)
    read = DatasetLoad(path=path).lines
    assert read_lines(write_lines(read), "x") == read


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({"at": 0.5}, "line 2: its at is earlier"),
        ({}, "line 2: other lines of its phase have the key at"),
        ({"at": "1"}, "line 2: its at is '1', and must be a number"),
        ({"at": -1}, "line 2: its at is -1"),
        ({"at": 2, "continues": "r0"}, "line 2: it continues a line of its phase"),
    ],
)
def test_times_that_make_no_schedule_are_refused(write: Write, second: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        DatasetLoad(path=write([{"prompt": [1], "request_id": "r0", "at": 1}, {"prompt": [2], **second}])).demands()
