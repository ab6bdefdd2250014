"""The proxy's contract with P and D, tested without servers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_fakes import PARAMS

from harness.proxy.contract import Endpoint, RejectedRequest, decode_body, parse_request, prefill_body
from harness.proxy.handover import IncompleteHandover, missing_from, take_handover
from harness.proxy.headers import request_headers, response_headers
from harness.proxy.rotation import pair

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    [
        "model", "temperature", "top_p", "seed", "stop", "logprobs", "prompt_logprobs", "echo", "min_tokens", "n",
        "best_of", "stream", "stream_options", "max_tokens", "max_completion_tokens", "return_token_ids", "tools",
        "response_format", "structured_outputs", "ignore_eos", "cache_salt", "suffix", "priority", "messages",
    ]
)  # fmt: skip
bodies = st.dictionaries(fields | st.text(), values, max_size=8).map(
    lambda body: {
        key: value
        for key, value in body.items()
        if key not in {"kv_transfer_params", "use_beam_search", "truncate_prompt_tokens", "prompt", "prompt_embeds"}
    }
)
endpoints = st.sampled_from(Endpoint)
GONE = {
    "stream_options", "min_tokens", "best_of", "prompt_logprobs", "echo", "return_token_ids", "return_prompt_text"
}  # fmt: skip


@given(bodies, endpoints, st.booleans())
def test_the_clients_fields_reach_d_unchanged(body: dict[str, Any], endpoint: Endpoint, indent: bool) -> None:
    raw = json.dumps(body, indent=2 if indent else None, ensure_ascii=indent).encode()
    to_d = json.loads(decode_body(raw, parse_request(raw, endpoint), PARAMS))
    assert to_d.pop("kv_transfer_params") == PARAMS
    assert to_d == json.loads(raw)


@given(bodies, endpoints)
def test_p_gets_every_field_except_those_that_are_dropped_for_prefill(body: dict[str, Any], endpoint: Endpoint) -> None:
    to_p = json.loads(prefill_body(body, endpoint))
    limits = {"stream": False, "max_tokens": 1, "n": 1} | (
        {"max_completion_tokens": 1} if endpoint is Endpoint.CHAT else {}
    )
    kept = {key: value for key, value in body.items() if key not in GONE}
    assert to_p.pop("kv_transfer_params")["do_remote_decode"] is True
    assert to_p == kept | limits


def test_p_is_asked_to_keep_its_blocks_and_gets_no_remote_server() -> None:
    to_p = json.loads(prefill_body({"prompt": "a"}, Endpoint.COMPLETIONS))
    assert to_p == {
        "prompt": "a",
        "stream": False,
        "max_tokens": 1,
        "n": 1,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_request_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }


def test_numbers_and_spaces_reach_d_as_the_client_spelled_them() -> None:
    raw = b' {"temperature": 1.50E0, "seed": 18446744073709551616, "prompt": "\\u00e9"}\n'
    to_d = decode_body(raw, parse_request(raw, Endpoint.COMPLETIONS), {"a": 1})
    assert (
        to_d
        == b' {"temperature": 1.50E0, "seed": 18446744073709551616, "prompt": "\\u00e9","kv_transfer_params":{"a":1}}'
    )


@pytest.mark.parametrize("raw", [b"{}", b" { } ", b'{"kv_transfer_params": null}'])
def test_parameters_are_added_to_empty_bodies_and_in_place_of_null(raw: bytes) -> None:
    to_d = decode_body(raw, parse_request(raw, Endpoint.CHAT), {"a": 1})
    assert json.loads(to_d, object_pairs_hook=list) == [("kv_transfer_params", [("a", 1)])]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"prompt": "a", "prompt_embeds": "b"}, "prompt"),
        ({"prompt_embeds": ["a", "b"]}, "prompt"),
        ({"prompt": "a", "kv_transfer_params": {"do_remote_prefill": True}}, "kv_transfer_params"),
        ({"prompt": "a", "kv_transfer_params": {}}, "kv_transfer_params"),
        ({"prompt": "a", "use_beam_search": True}, "use_beam_search"),
        ({"prompt": "a", "truncate_prompt_tokens": -1}, "truncate_prompt_tokens"),
        ({"prompt": "a", "truncate_prompt_tokens": "-1"}, "truncate_prompt_tokens"),
    ],
)
def test_a_request_that_bypasses_the_transfer_or_changes_the_prompt_is_rejected(body: Any, param: str) -> None:
    with pytest.raises(RejectedRequest) as caught:
        parse_request(json.dumps(body).encode(), Endpoint.COMPLETIONS)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "prompt", ["a", ["a"], [1, 2, 3], [[1, 2, 3]], [], None], ids=["text", "text1", "ids", "ids1", "empty", "null"]
)
def test_one_prompt_in_any_form_is_served(prompt: Any) -> None:
    assert parse_request(json.dumps({"prompt": prompt}).encode(), Endpoint.COMPLETIONS) == {"prompt": prompt}


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b'{"a": "\xff"}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_rejected(raw: bytes) -> None:
    with pytest.raises(RejectedRequest):
        parse_request(raw, Endpoint.CHAT)


@pytest.mark.parametrize(
    "key", ["remote_engine_id", "remote_request_id", "remote_host", "remote_port", "remote_block_ids"]
)
@pytest.mark.parametrize("value", [None, "", []])
def test_a_key_that_d_needs_is_named_if_absent_or_empty(key: str, value: Any) -> None:
    without = {name: given for name, given in PARAMS.items() if name != key}
    for params in (without, without | {key: value}):
        missing = missing_from(params)
        assert [name.split()[0] for name in missing] == [key]


@pytest.mark.parametrize("ids", [[[]], [[], []], [None], [[1, None]], [[1], 2], ["1"], "12", {"0": [1]}, [True]])
def test_empty_and_malformed_block_ids_are_missing(ids: Any) -> None:
    assert missing_from(PARAMS | {"remote_block_ids": ids})


@pytest.mark.parametrize("ids", [[0], [1, 2], [[0]], [[1, 2], [3]], [[], [3]]])
def test_block_ids_may_be_flat_or_one_list_for_each_group(ids: Any) -> None:
    assert missing_from(PARAMS | {"remote_block_ids": ids}) == []


@pytest.mark.parametrize("flag", [None, False, "true"])
def test_do_remote_prefill_is_required(flag: Any) -> None:
    assert missing_from(PARAMS | {"do_remote_prefill": flag}) == ["do_remote_prefill: true"]


@pytest.mark.parametrize("answer", [{}, {"kv_transfer_params": None}, {"kv_transfer_params": {}}, [], "x", 1])
def test_an_answer_without_parameters_is_no_handover(answer: Any) -> None:
    with pytest.raises(IncompleteHandover, match="has no kv_transfer_params"):
        take_handover(json.dumps(answer).encode())


def test_the_message_about_missing_parameters_has_the_finish_reason() -> None:
    with pytest.raises(IncompleteHandover, match="finish_reason abort"):
        take_handover(b'{"choices": [{"finish_reason": "abort"}], "kv_transfer_params": null}')


def test_a_complete_handover_is_passed_on_unchanged() -> None:
    params = PARAMS | {"of a later version": {"x": [1.5, None]}}
    assert take_handover(json.dumps({"kv_transfer_params": params}).encode()).params == params


@given(st.integers(1, 5), st.integers(1, 5))
def test_the_rotation_is_even_and_produces_every_pair(prefills: int, decodes: int) -> None:
    turns = [pair(request, prefills, decodes) for request in range(prefills * decodes)]
    assert set(turns) == {(p, d) for p in range(prefills) for d in range(decodes)}
    for end in range(len(turns)):
        for side, servers in ((0, prefills), (1, decodes)):
            shares = [sum(turn[side] == server for turn in turns[:end]) for server in range(servers)]
            assert max(shares) - min(shares) <= 1


def wire(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def plain(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    assert len(dict(headers)) == len(headers)
    return {name.decode(): value.decode() for name, value in headers}


def test_headers_of_one_connection_stay_on_it() -> None:
    sent = {
        "Authorization": "Bearer x", "Connection": "X-Mine, close", "X-Mine": "1", "Host": "h", "Content-Length": "3",
        "Accept-Encoding": "gzip", "Transfer-Encoding": "chunked", "traceparent": "t", "X-Request-Id": "theirs",
    }  # fmt: skip
    assert plain(request_headers(wire(sent), b"ours")) == {
        "Authorization": "Bearer x",
        "traceparent": "t",
        "X-Request-Id": "ours",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


def test_the_proxys_headers_replace_the_servers() -> None:
    answer = {"x-request-id": "d's", "Content-Type": "text/event-stream", "Connection": "close", "Content-Length": "3"}
    assert plain(response_headers(wire(answer), {b"X-Request-Id": b"ours"})) == {
        "X-Request-Id": "ours",
        "Content-Type": "text/event-stream",
        "Content-Length": "3",
    }
