"""The catalogue's scenarios: complete, distinct, reproducible, and with prompts of the lengths they promise."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_settings import HOMES, SETTING, deployment

import workloads
from bench.edge_cases import NINE
from harness.catalogue import choice, registry
from harness.catalogue.background import beside_load
from harness.catalogue.builder import Builder, together
from harness.catalogue.choice import catalogue, choose
from harness.catalogue.needs import unmet
from harness.catalogue.presets import PRESETS
from harness.catalogue.prompts import WORDS, Prompts
from harness.catalogue.registry import CATALOGUE, Workload, workload
from harness.catalogue.setting import Setting
from harness.errors import HarnessError, UsageError
from harness.models.tokenizer import WORDS as CANARY_WORDS
from harness.scenario import Endpoint, Message, Phase, Purpose, Request, Route, Scenario
from workloads.offload import flood

EVERY = catalogue()


def requests(scenario: Scenario) -> list[Request]:
    return [request for phase in scenario.phases for request in phase.requests]


def served(scenario: Scenario) -> list[Request]:
    return [request for request in requests(scenario) if request.of_load]


def phase(name: str, of: Scenario) -> Phase:
    return next(phase for phase in of.phases if phase.name == name)


def lengths(phase: Phase) -> list[int]:
    return [len(request.prompt) for request in phase.requests]


def scenario(name: str, setting: Setting = SETTING) -> Scenario:
    return CATALOGUE[name](setting)


def test_the_nine_basic_workloads_exist() -> None:
    assert set(NINE) <= set(CATALOGUE)


@pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry.name)
def test_a_scenario_is_reproducible_and_differs_between_runs_only_in_its_salt(entry: Workload) -> None:
    assert entry(SETTING) == entry(SETTING)
    first, second = entry(SETTING), entry(replace(SETTING, salt="two"))
    assert [r.prompt for r in requests(first)] == [r.prompt for r in requests(second)]
    assert not {r.cache_salt for r in requests(first)} & {r.cache_salt for r in requests(second)}


def test_no_two_workloads_share_an_id_or_a_salt() -> None:
    written = [entry(SETTING) for entry in EVERY]
    ids = Counter(request.request_id for one in written for request in requests(one))
    assert max(ids.values()) == 1
    salts = Counter(salt for one in written for salt in {request.cache_salt for request in requests(one)})
    assert max(salts.values()) == 1


@pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry.name)
def test_a_workload_is_in_its_familys_module_and_has_a_preset_that_meets_its_needs(entry: Workload) -> None:
    assert entry.family in workloads.__all__
    assert entry.write.__module__ == f"workloads.{entry.family}"
    assert "Hunts" in entry.hunts
    assert len(entry.summary) < 120
    assert unmet(entry.needs, HOMES[entry.home]) is None


@pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry.name)
def test_prompts_fit_the_context_unless_a_refusal_is_expected(entry: Workload) -> None:
    home = HOMES[entry.home]
    written = entry(Setting.of(home))
    limit = min(server.max_model_len or 0 for server in home.servers)
    for request in served(written):
        if request.expect_status is None and not isinstance(request.prompt, str):
            assert len(request.prompt) + request.sampling.max_tokens <= limit
    assert all(1 <= phase.concurrency <= max(len(phase.requests), 32) for phase in written.phases)


def test_every_phase_is_counted_and_has_only_requests_of_the_load() -> None:
    for entry in EVERY:
        counted = [phase.counted for phase in entry(SETTING).phases]
        # A bad reference leaves blocks on prefill until its lease has ended.
        assert any(counted) if entry.family == "parameters" else all(counted)
        assert all(request.of_load for request in requests(entry(SETTING)))


def test_requests_with_references_are_in_phases_that_are_not_counted() -> None:
    phases = [phase for entry in EVERY for phase in entry(SETTING).phases]
    handed = [phase for phase in phases if any(one.holds or one.reference_of for one in phase.requests)]
    assert handed
    assert not any(phase.counted for phase in handed)


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("short_prompt", "cold", [10]),
        ("block_boundary", "cold", [32]),
        ("above_boundary", "cold", [34]),
        ("multi_block", "cold", [128]),
        ("single_token", "cold", [1, 1, 1, 1]),
        ("longest_prompt", "cold", [1016]),
        ("cold_decode", "cold", [101]),
        ("full_decode_hit", "prime", [101]),
        ("full_decode_hit", "ask", [101]),
        ("partial_decode_hit", "prime", [64]),
        ("partial_decode_hit", "ask", [131]),
        ("last_block_pulled", "ask", [32, 64, 96, 128]),
        ("direct_decode", "direct", [10, 32, 101]),
        ("offload_recovery", "again", [133]),
        ("growing_prompt", "growing", [29, 32, 65, 95, 128, 160]),
        ("too_long", "ask", [33, 1025, 64]),
        ("chunked_prefill", "at once", [127, 128, 129, 191, 192, 193, 319, 320, 321]),
    ],
)
def test_prompts_have_the_lengths_calculated_by_hand(name: str, asked: str, expected: list[int]) -> None:
    assert lengths(phase(asked, scenario(name))) == expected


def test_lengths_around_the_first_eight_boundaries() -> None:
    assert lengths(phase("cold", scenario("around_boundaries"))) == [
        *(31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129),
        *(159, 160, 161, 191, 192, 193, 223, 224, 225, 255, 256, 257),
    ]


def test_a_boundary_is_a_boundary_on_both_servers_if_block_sizes_differ() -> None:
    unlike = replace(SETTING, prefill_block_size=32, decode_block_size=64)
    assert lengths(phase("cold", scenario("block_boundary", unlike))) == [64]


@pytest.mark.parametrize("name", ["around_boundaries", "mixed_lengths", "single_token", "cold_decode", "pool_churn"])
def test_cold_prompts_have_different_first_tokens(name: str) -> None:
    openings = [request.prompt[0] for request in served(scenario(name))]
    assert len(set(openings)) == len(openings)


def test_a_decode_hit_has_the_prompt_and_salt_that_primed_decode() -> None:
    full, partial = scenario("full_decode_hit"), scenario("partial_decode_hit")
    (primed,), (asked,) = phase("prime", full).requests, phase("ask", full).requests
    assert (primed.route, asked.route) == (Route.DECODE, Route.PROXY)
    assert (primed.prompt, primed.cache_salt) == (asked.prompt, asked.cache_salt)
    (primed,), (asked,) = phase("prime", partial).requests, phase("ask", partial).requests
    assert asked.prompt[:64] == primed.prompt
    assert primed.cache_salt == asked.cache_salt


def test_a_hundred_prompts_share_two_blocks_and_no_more() -> None:
    asked = phase("at once", scenario("hundred_sharing"))
    assert (len(asked.requests), asked.concurrency) == (100, 100)
    assert len({request.prompt[:64] for request in asked.requests}) == 1
    assert len({request.prompt for request in asked.requests}) == 100


def test_continuations_of_different_branches_have_equal_blocks_at_equal_places() -> None:
    twigs = [request.prompt for request in phase("twigs", scenario("branching_prompts")).requests]
    assert len(set(twigs)) == 4
    assert twigs[0][:64] == twigs[1][:64] != twigs[2][:64] == twigs[3][:64]
    assert twigs[0][:32] == twigs[2][:32]
    assert (twigs[0][64:], twigs[1][64:]) == (twigs[2][64:], twigs[3][64:])


def test_a_flood_fills_the_pool_with_new_blocks() -> None:
    setting = replace(SETTING, prefill_blocks=1024, max_model_len=8192, prefill=2)
    for server in range(2):
        asked = [r for r in flood(Builder("any", setting), Route.PREFILL).requests if r.server == server]
        assert sum(len(request.prompt) // 32 for request in asked) >= 1023
        assert len({request.prompt[0] for request in asked}) == len(asked)


def test_turns_name_the_previous_turn() -> None:
    written = scenario("chat_turns")
    first, second = phase("turn 1", written), phase("turn 2", written)
    assert [request.continues for request in first.requests] == [None, None, None]
    assert [request.continues for request in second.requests] == [request.request_id for request in first.requests]
    assert {request.endpoint for request in second.requests} == {Endpoint.CHAT}


def test_background_requests_share_no_salt_or_id_with_the_workload() -> None:
    plain = scenario("hit_on_both")
    loaded = beside_load(plain, SETTING, 5)
    background = [request for phase in loaded.phases for request in phase.background]
    assert [phase.background_concurrency for phase in loaded.phases] == [5, 5, 5]
    assert {request.purpose for request in background} == {Purpose.BACKGROUND}
    assert {request.purpose for request in requests(plain)} == {Purpose.LOAD}
    assert [p.requests for p in loaded.phases] == [p.requests for p in plain.phases]
    assert not {r.cache_salt for r in background} & {r.cache_salt for r in requests(plain)}
    ids = [request.request_id for request in (*requests(loaded), *background)]
    assert len(set(ids)) == len(ids)


# Prompts


@given(st.integers(0, 2**31), st.lists(st.integers(1, 200), min_size=1, max_size=40))
@settings(max_examples=50)
def test_prompts_have_the_wanted_length_and_different_first_tokens(seed: int, wanted: list[int]) -> None:
    prompts = Prompts(replace(SETTING, seed=seed), "any")
    made = [prompts.ids(length) for length in wanted]
    assert [len(prompt) for prompt in made] == wanted
    assert len({prompt[0] for prompt in made}) == len(made)
    assert all(7 <= token < 4096 for prompt in made for token in prompt)


def test_each_word_is_one_token_of_the_canary() -> None:
    assert set(WORDS) <= set(CANARY_WORDS)
    assert len(set(WORDS)) == len(WORDS)
    prompts = Prompts(SETTING, "any")
    texts = [prompts.words(9) for _ in range(12)]
    assert {len(text.split()) for text in texts} == {9}
    assert len({text.split()[0] for text in texts}) == 12


def test_a_vocabulary_that_is_too_small_is_an_error() -> None:
    prompts = Prompts(replace(SETTING, vocab_size=9), "any")
    prompts.ids(3), prompts.ids(3)
    with pytest.raises(UsageError, match="too few tokens"):
        prompts.ids(3)


# Choosing


def test_a_star_chooses_all_workloads_in_the_catalogues_order() -> None:
    assert choose(["*"]) == EVERY
    assert [entry.name for entry in EVERY][:7] == [
        *("short_prompt", "block_boundary", "above_boundary", "multi_block"),
        *("single_token", "around_boundaries", "longest_prompt"),
    ]


def test_workloads_are_chosen_by_name_family_and_glob() -> None:
    assert [entry.name for entry in choose(["multi_block", "short_prompt"])] == ["short_prompt", "multi_block"]
    assert {entry.family for entry in choose(["chat"])} == {"chat"}
    assert {entry.name for entry in choose(["*_decode_hit"])} == {"full_decode_hit", "partial_decode_hit"}


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="No workload is called 'nothing_like_it'"):
        choose(["short_prompt", "nothing_like_it"])


def test_a_workload_that_does_not_say_what_it_hunts_is_refused() -> None:
    def silent(build: Builder) -> Iterator[Phase]:
        """Only a summary."""
        yield together("ask", [build.ask(3)])

    with pytest.raises(HarnessError, match="what it hunts"):
        workload(family="lengths")(silent)
    assert "silent" not in CATALOGUE


THEIRS = """
from harness.catalogue.builder import together
from harness.catalogue.registry import workload

@workload(family="theirs")
def their_case(build):
    '''One prompt.

    Hunts a bug of their connector.
    '''
    yield together("ask", [build.ask(build.ids(3))])
"""


def install(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, source: str) -> None:
    """Another project's module of workloads, named by an entry point."""
    (directory / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(directory))
    found = EntryPoint("theirs", name, choice.ENTRY_POINTS)
    monkeypatch.setattr(choice, "entry_points", lambda group: [found] if group == choice.ENTRY_POINTS else [])
    known = dict(CATALOGUE)
    monkeypatch.setattr(registry, "CATALOGUE", known)
    monkeypatch.setattr(choice, "CATALOGUE", known)


def test_another_projects_workloads_are_found_by_their_entry_point(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, "their_workloads", THEIRS)
    assert [entry.name for entry in choose(["theirs"])] == ["their_case"]
    assert [entry.name for entry in catalogue()] == [*(entry.name for entry in EVERY), "their_case"]


def test_a_package_of_workloads_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, "their_broken_workloads", "import no_such_module")
    with pytest.raises(UsageError, match="'their_broken_workloads' cannot be imported: ModuleNotFoundError"):
        catalogue()


def test_every_preset_is_the_home_of_a_workload() -> None:
    assert {entry.home for entry in EVERY} == set(PRESETS)


# Settings


def test_a_setting_has_the_smallest_limits_of_all_servers() -> None:
    facts = deployment()
    prefill, decode = facts.servers
    facts = replace(facts, servers=(replace(prefill, max_model_len=512), replace(decode, block_size=64, num_blocks=9)))
    setting = Setting.of(facts, seed=3, salt="s")
    assert (setting.max_model_len, setting.block, setting.decode_blocks, setting.seed) == (512, 64, 9, 3)


@pytest.mark.parametrize("change", [{"vocab_size": None}, {"servers": ()}])
def test_a_deployment_with_too_few_known_facts_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Setting.of(deployment(**change))


def test_a_chat_prompt_goes_to_chat_and_text_to_completions() -> None:
    build = Builder("any", SETTING)
    assert build.ask((Message("user", "hello"),)).endpoint is Endpoint.CHAT
    assert build.ask("hello").endpoint is Endpoint.COMPLETIONS
    assert build.ask("hello", endpoint=Endpoint.CHAT).endpoint is Endpoint.CHAT
