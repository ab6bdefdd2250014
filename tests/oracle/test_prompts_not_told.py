"""A text that was sent and never answered: nobody knows its tokens, nor what it left in the tier for later requests."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers.predictions import tokenized
from harness.history import Ended, History, Operation, Outcome, Sent
from harness.oracle import predict

TEXT = "a text of two blocks"
TOKENS = tuple(range(128))


def operation(name: str, at: float, phase: str, tokens: tuple[int, ...] | None, text: str = TEXT) -> Operation:
    outcome = Outcome.INFO if tokens is None else Outcome.OK
    [sent, ended] = run.operation(replace(run.request(0), request_id=name, prompt=text), phase)
    assert isinstance(sent, Sent)
    assert isinstance(ended, Ended)
    ended = replace(ended, at=at + 0.5, outcome=outcome, prompt_token_ids=tokens)
    return Operation(replace(sent, at=at, intended_at=at), ended)


def stored(*operations: Operation) -> int:
    """Bytes that prefill stores in the last phase, at least."""
    bounds = predict(run.DEPLOYMENT, operations)["cold", "later"]["prefill-0"].of("offload_store_bytes")
    assert bounds is not None
    assert bounds.high >= 2 * run.BLOCK
    return bounds.low


def test_an_unanswered_text_may_have_stored_what_a_later_one_would_store() -> None:
    later = operation("later", 5, "later", TOKENS)
    assert stored(later) == 2 * run.BLOCK
    assert stored(operation("cut", 1, "load", None), later) == 0


def test_several_requests_of_the_same_blocks_may_all_find_them_stored() -> None:
    twice = operation("later", 5, "later", TOKENS), operation("again", 6, "later", TOKENS)
    assert stored(*twice) == 2 * run.BLOCK
    assert stored(operation("cut", 1, "load", None), *twice) == 0


@pytest.mark.parametrize(("text", "found"), [(TEXT, TOKENS), ("another text", None)])
def test_a_text_is_tokenized_as_it_was_when_it_was_answered(text: str, found: tuple[int, ...] | None) -> None:
    cut, read = operation("cut", 1, "load", None), operation("read", 5, "later", TOKENS, text)
    history = History((cut.sent, cut.ended, read.sent, read.ended))
    assert [one.prompt_token_ids for one in tokenized([cut, read], history)] == [found, TOKENS]
    assert tokenized([read], history) == [read]
