"""Undamaged requests that may have read a damaged request's blocks from the decode server's prefix cache."""

from dataclasses import replace
from typing import Any

import pytest

from bench.damage_sharing import Served, served_in, sharing
from bench.sabotage import Blow
from harness.facts import Deployment, Role, Server
from harness.history import Ended, Entry, History, Outcome, Sent
from harness.scenario import Purpose, Request, Route

BEGIN = tuple(range(1000, 1012))
"""Three blocks of four tokens."""
DAMAGED = Served((*BEGIN, 7, 7), sent=5.0, decode_server="http://d", salt="s", block_size=4)


def shared(block: int, *others: Served, **details: Any) -> list[str]:
    """Which of the other requests share the damage to one block of ``DAMAGED``, which ``struck`` sent."""
    served = {"struck": DAMAGED, **{f"other-{number}": one for number, one in enumerate(others)}}
    return list(sharing(served, [Blow("struck", "swap", {"blocks": [block], **details})]))


def later(*tokens: int, **fields: Any) -> Served:
    return replace(DAMAGED, tokens=tokens, **({"sent": 6.0} | fields))


def test_a_prompt_that_begins_alike_up_to_and_including_the_damaged_block_shares_it() -> None:
    one = later(*BEGIN[:8], 1, 2, 3)
    assert shared(0, one) == shared(1, one) == ["other-0"]
    assert shared(2, one) == []


def test_only_a_full_block_is_shared_and_only_if_a_token_follows() -> None:
    assert shared(0, later(*BEGIN[:3], 1, 2, 3)) == [], "its fourth token differs"
    assert shared(0, later(*BEGIN[:4])) == [], "its last token is computed anew, and so its only block is"
    assert shared(0, later(*BEGIN[:4], 9)) == ["other-0"]
    assert shared(3, later(*BEGIN, 7, 7, 7, 7, 7)) == [], "the damaged request's last block is not full"


@pytest.mark.parametrize(("sent", "expected"), [(4.9, []), (5.1, ["other-0"]), (90.0, ["other-0"])])
def test_a_request_that_was_sent_before_the_damage_shares_nothing(sent: float, expected: list[str]) -> None:
    assert shared(0, later(*BEGIN, 1, sent=sent)) == expected


@pytest.mark.parametrize("elsewhere", [{"decode_server": "http://e"}, {"salt": None}])
def test_another_server_or_salt_is_another_cache(elsewhere: dict[str, Any]) -> None:
    assert shared(0, later(*BEGIN, 1, **elsewhere)) == []


def test_the_first_damaged_block_decides_however_blocks_are_listed() -> None:
    served = {"struck": DAMAGED, "other": later(*BEGIN[:8], 1)}
    assert sharing(served, [Blow("struck", "swap", {"blocks": [2, 1]})]) == {"other": "struck"}
    assert sharing(served, [Blow("struck", "swap", {"blocks": []}), Blow("unknown", "flip", {"blocks": [0]})]) == {}


def test_a_struck_request_is_not_said_to_share() -> None:
    served = {"struck": DAMAGED, "again": later(*BEGIN, 1), "other": later(*BEGIN, 2, sent=7.0)}
    blows = [Blow(who, "scale", {"blocks": [0, 1]}) for who in ("struck", "again")]
    assert sharing(served, blows) == {"other": "struck"}


def test_a_block_of_an_owner_that_begins_alike_is_no_damage() -> None:
    """Up to where the prompts differ, the other request's blocks are the right ones."""
    owner = later(*BEGIN[:4], *range(4), sent=1.0)
    assert shared(0, owner, later(*BEGIN[:4], 1), owner="other-0") == []
    assert shared(1, owner, later(*BEGIN[:8], 1), owner="other-0") == ["other-1"]


def test_nothing_is_said_where_the_block_size_is_unknown() -> None:
    served = {"struck": replace(DAMAGED, block_size=None), "other": later(*BEGIN, 1, block_size=None)}
    assert sharing(served, [Blow("struck", "swap", {"blocks": [0]})]) == {}


class TestHistory:
    ONE = Deployment(
        (Server("p", Role.PREFILL, "http://p", block_size=8), Server("d", Role.DECODE, "http://d", block_size=4)),
        proxy_url="http://proxy",
        model="m",
    )

    def entries(self, request: Request, **ended: Any) -> tuple[Entry, ...]:
        return (
            Sent(1.5, request, "main", "load", 1.0),
            Ended(2.0, request.request_id, Outcome.OK, **ended),
        )

    def test_a_text_has_the_tokens_that_the_server_reports(self) -> None:
        text = Request("load-1", "a text", cache_salt="s")
        history = History(self.entries(text, prompt_token_ids=(1, 2, 3)))
        assert served_in(self.ONE, history) == {"load-1": Served((1, 2, 3), 1.5, "http://d", "s", 4)}
        assert served_in(self.ONE, History(self.entries(text))) == {}

    def test_of_several_decode_servers_the_one_that_served(self) -> None:
        two = replace(self.ONE, servers=(*self.ONE.servers, Server("e", Role.DECODE, "http://e", block_size=16)))
        asked = Request("load-1", (1, 2, 3))
        [known] = served_in(two, History(self.entries(asked, decode_server="http://e"))).values()
        [unknown] = served_in(two, History(self.entries(asked))).values()
        assert [(one.decode_server, one.block_size) for one in (known, unknown)] == [("http://e", 16), (None, None)]

    def test_a_server_without_a_prefix_cache_shares_nothing(self) -> None:
        prefill, decode = self.ONE.servers
        without = replace(self.ONE, servers=(prefill, replace(decode, prefix_caching=False)))
        [one] = served_in(without, History(self.entries(Request("load-1", (1, 2, 3))))).values()
        assert one.block_size is None

    def test_requests_of_verification_are_left_out(self) -> None:
        asked = Request("again", (1, 2, 3), route=Route.DECODE, purpose=Purpose.CONTROL, about="load-1")
        assert served_in(self.ONE, History(self.entries(asked))) == {}
