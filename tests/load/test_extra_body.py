"""The neutral sampling fields of every body, and which fields --extra-body may change."""

import json
from typing import Any

import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, run
from hypothesis import given, reject
from hypothesis import strategies as st

from harness.cli.options import parse
from harness.clock import MonotonicClock
from harness.errors import UsageError
from harness.history import Decoding, History
from harness.load.body import with_extra
from harness.load.client import Client
from harness.load.extra_body import NEUTRAL, checked, shifts
from harness.scenario import Endpoint, Message, Purpose, Request, Route, Sampling
from harness.verdict import Verdict
from harness.verify.asking.requests import control, teacher_forcing
from harness.verify.judging import outputs

LOAD = Request("r", (1, 2, 3), Sampling(8))
KINDS = {
    "load": LOAD,
    "text": Request("r", "text"),
    "chat": Request("r", (Message("user", "hi"),), endpoint=Endpoint.CHAT),
    "drawn": Request("r", (1,), Sampling(8, temperature=0.7, seed=1)),
    "control": control("r", (1, 2), 8, name="c", salt="s"),
    "forcing": teacher_forcing("r", (1, 2), (3,), name="f", salt="s", route=Route.PREFILL),
    "probe": Request("p", (1,), purpose=Purpose.PROBE, about="r"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_sends_the_neutral_sampling_fields(kind: str) -> None:
    body = with_extra(KINDS[kind], model="m", extra={})
    assert {name: body[name] for name in NEUTRAL} == {
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_sends_the_users_sampling_fields(kind: str) -> None:
    extra = {"repetition_penalty": 1.1, "top_p": 0.9, "priority": 3}
    body = with_extra(KINDS[kind], model="m", extra=checked(extra))
    assert {name: body[name] for name in extra} == extra
    assert body["min_p"] == 0.0


OWN = [
    *("model", "prompt", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "min_tokens"),
    *("temperature", "seed", "n", "echo", "stop", "stop_token_ids", "ignore_eos", "logprobs", "top_logprobs"),
    *("prompt_logprobs", "cache_salt", "kv_transfer_params", "return_token_ids", "return_tokens_as_token_ids"),
]


@pytest.mark.parametrize("name", OWN)
def test_a_field_that_the_run_sets_itself_is_refused_by_name_at_once(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--extra-body sets {name}, "):
        parse(["run", "--extra-body", json.dumps({"top_p": 0.9, name: 1})])
    with pytest.raises(UsageError, match=name):
        Client({}, model="m", clock=MonotonicClock(), timeout=1, extra_body={name: None})


FULL = Sampling(4, 2, ignore_eos=True, seed=1, n=2, stop=("x",), logprobs=2, prompt_logprobs=0, echo=False)


@pytest.mark.parametrize("endpoint", Endpoint)
def test_no_field_that_a_request_sets_can_be_overridden(endpoint: Endpoint) -> None:
    prompt: Any = (1,) if endpoint is Endpoint.COMPLETIONS else "hi"
    body = with_extra(Request("r", prompt, FULL, endpoint=endpoint, cache_salt="s"), model="m", extra={})
    for name in set(body) - set(NEUTRAL):
        with pytest.raises(UsageError):
            checked({name: 1})


@given(st.dictionaries(st.text(max_size=12), st.none() | st.integers() | st.text(max_size=3), max_size=4))
def test_a_field_that_is_not_refused_is_sent(extra: dict[str, Any]) -> None:
    try:
        body = with_extra(LOAD, model="m", extra=checked(extra))
    except UsageError:
        # Hypothesis also draws names that occur in the source code.
        reject()
    assert {name: body[name] for name in extra} == extra


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({}, ()),
        ({"repetition_penalty": 1, "presence_penalty": 0, "top_p": 0.5, "user": "x"}, ()),
        ({"repetition_penalty": 1.1, "top_p": 0.5}, ("repetition_penalty",)),
        ({"frequency_penalty": 0.5, "logit_bias": {"5": 1}}, ("frequency_penalty", "logit_bias")),
        ({"logit_bias": None, "bad_words": []}, ()),
    ],
)
def test_fields_that_make_servers_choose_other_tokens_are_known(extra: Any, names: tuple[str, ...]) -> None:
    assert shifts(extra) == names


def serve_an_improbable_token(name: str, readings: Readings) -> None:
    """One token of one output is far less probable than its rival, in both readings."""
    if name == "load-17":
        readings.served[5], readings.rival[5] = readings.rival[5] - 3.0, readings.served[5]
        readings.forced[5], readings.forced_rival[5] = readings.forced_rival[5] - 3.0, readings.forced[5]


def test_with_a_penalty_a_wrong_output_is_unknown_and_the_reason_is_given() -> None:
    history = run(gaussian(1e-5), damage=serve_an_improbable_token)
    assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID
    penalised = History((Decoding(0.0, (), ("repetition_penalty",)), *history.entries))
    check = outputs(DEPLOYMENT, penalised)
    assert check.verdict is Verdict.UNKNOWN
    assert "--extra-body sets repetition_penalty" in check.summary
    unharmed = History((Decoding(0.0, (), ("repetition_penalty",)), *run(gaussian(0.0)).entries))
    assert outputs(DEPLOYMENT, unharmed).verdict is Verdict.VALID
