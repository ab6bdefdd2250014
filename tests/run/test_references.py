"""References to KV on a prefill server: who gets which, and how they are altered."""

import json
from typing import Any

import pytest
from jumping_clock import JumpingClock
from observed_journal import Journal

from harness.history import Choice, Ended, Ending, Outcome
from harness.load.body import encode
from harness.run.references import altered
from harness.run.runner import run_scenario
from harness.scenario import Altered, Phase, Request, Route, Scenario

GIVEN: dict[str, Any] = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[7, 8, 9]],
    "remote_engine_id": "prefill",
    "remote_request_id": "cmpl-held-0",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
    "tp_size": 1,
}
HELD = Request("held", (1, 2), route=Route.PREFILL, stream=False, holds=True)


def changed(how: Altered) -> Any:
    return json.loads(altered(json.dumps(GIVEN), how))


async def run(*requests: Request, reference: str | None = json.dumps(GIVEN)) -> Journal:
    clock, journal = JumpingClock(), Journal()

    async def send(request: Request) -> Ended:
        given = reference if request.holds else None
        choices = (Choice((7,), " a", "length"),)
        return Ended(clock.now(), request.request_id, Outcome.OK, "", 200, choices=choices, reference=given)

    phases = tuple(Phase(request.request_id, (request,)) for request in requests)
    await run_scenario(
        Scenario("references", "", phases), send=send, counters=journal, record=journal.record, clock=clock
    )
    return journal


async def test_a_request_sends_the_reference_that_another_one_was_given() -> None:
    journal = await run(HELD, Request("sent", (1, 2), route=Route.DECODE, reference_of="held"))
    _, sent = journal.sents()
    assert json.loads(sent.request.reference or "") == GIVEN
    assert json.loads(encode(sent.request, model="m"))["kv_transfer_params"] == GIVEN


async def test_an_altered_reference_is_recorded_as_it_was_sent() -> None:
    journal = await run(HELD, Request("sent", (1, 2), route=Route.DECODE, reference_of="held", altered=Altered.TOO_FEW))
    assert json.loads(journal.sents()[1].request.reference or "") == {**GIVEN, "remote_block_ids": [[7, 8]]}


async def test_without_a_reference_to_send_a_request_is_not_sent() -> None:
    journal = await run(HELD, Request("sent", (1, 2), route=Route.DECODE, reference_of="held"), reference=None)
    end = journal.ends()["sent"]
    assert (end.ending, end.outcome) == (Ending.NOT_SENT, Outcome.FAIL)
    assert "was given no reference" in end.cause


def test_a_request_that_holds_asks_for_a_reference_as_the_proxy_does() -> None:
    params = json.loads(encode(HELD, model="m"))["kv_transfer_params"]
    assert params["do_remote_decode"] is True
    assert params["do_remote_prefill"] is False


@pytest.mark.parametrize("how", Altered)
def test_every_alteration_changes_the_reference(how: Altered) -> None:
    assert changed(how) != GIVEN


@pytest.mark.parametrize(
    ("how", "blocks"),
    [
        (Altered.NEGATIVE, [[-8, -9, -10]]),
        (Altered.TOO_FEW, [[7, 8]]),
        (Altered.TOO_MANY, [[7, 8, 9, 7]]),
        (Altered.REORDERED, [[9, 8, 7]]),
        (Altered.NO_BLOCKS, [[]]),
        (Altered.NO_GROUPS, []),
        (Altered.NULL_BLOCKS, None),
        (Altered.TEXT_IDS, [["7", "8", "9"]]),
        (Altered.FRACTIONS, [[7.5, 8.5, 9.5]]),
    ],
)
def test_block_ids_are_altered_in_each_group_and_nothing_else_is(how: Altered, blocks: Any) -> None:
    assert changed(how) == {**GIVEN, "remote_block_ids": blocks}


def test_block_ids_in_a_flat_list_are_altered_too() -> None:
    flat = json.dumps({**GIVEN, "remote_block_ids": [7, 8, 9]})
    assert json.loads(altered(flat, Altered.TOO_FEW))["remote_block_ids"] == [7, 8]
