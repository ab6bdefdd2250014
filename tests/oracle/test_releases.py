"""Counting differences of older releases and development builds are accepted for these versions only."""

import counted_run as run
import pytest
from oracle_runs import NIXL, Script, deployed, prompt

from harness.checkers.token_sources import token_sources
from harness.history import History
from harness.oracle.releases import brings_prompts_for_logprobs, release
from harness.verdict import Verdict

DEVELOPMENT = "0.1.dev18+g5e1a1a8"
OLD_OR_UNKNOWN = ["0.19.1", DEVELOPMENT, "0.21.1rc1.dev44+gabc", None, "nightly"]


def of_version(version: str | None) -> run.Deployment:
    return run.DEPLOYMENT.with_servers(version=version)


def seen(**decode: float) -> History:
    return run.history(run.readings(decode=run.DECODE | decode))


def verdict(version: str | None, **decode: float) -> Verdict:
    return token_sources(of_version(version), seen(**decode)).verdict


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.32.0", (0, 32)),
        ("0.20.0rc1", (0, 20)),
        ("1.0", (1, 0)),
        *((text, None) for text in (DEVELOPMENT, "0.21.1rc1.dev44+gabc", "", "v0.32", "²", "0.²", None)),
    ],
)
def test_a_development_build_names_no_release(version: str | None, known: tuple[int, int] | None) -> None:
    assert release(version) == known


@pytest.mark.parametrize("version", OLD_OR_UNKNOWN)
def test_before_0_20_one_token_of_each_fully_brought_prompt_may_count_twice(version: str | None) -> None:
    assert verdict(version, compute=2) is Verdict.VALID
    assert verdict(version, compute=2, external=226) is Verdict.VALID
    assert verdict(version) is Verdict.VALID
    assert verdict(version, compute=3) is Verdict.INVALID
    assert verdict(version, compute=100, external=128, external_hits=128) is Verdict.INVALID


def test_since_0_20_no_token_may_count_twice() -> None:
    assert verdict("0.20.0", compute=2) is Verdict.INVALID
    assert verdict("0.32.0", compute=1) is Verdict.INVALID


def test_in_every_version_recomputed_tokens_that_the_engine_reports_may_count_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(run.NAMES, "recomputed", f"vllm:prompt_tokens_recomputed_total{{{run.ENGINE}}}")
    for compute, right in ((2, Verdict.VALID), (3, Verdict.INVALID)):
        readings = [
            run.reading(server, label, values | {"recomputed": again})
            for server, label, values, again in (
                ("prefill-0", "before", run.ZERO, 0),
                ("decode-0", "before", run.ZERO, 0),
                ("prefill-0", "after", run.PREFILL, 0),
                ("decode-0", "after", run.DECODE | {"compute": compute}, 2),
            )
        ]
        assert token_sources(run.DEPLOYMENT, run.history(readings)).verdict is right


@pytest.mark.parametrize("version", ["0.25.1", *OLD_OR_UNKNOWN])
def test_before_0_26_a_repeated_lookup_counts_again(version: str | None) -> None:
    assert verdict(version, prefix_queries=400) is Verdict.VALID
    assert verdict(version, prefix_queries=227) is Verdict.INVALID
    # Nothing was cached, so repeated lookups cannot hit.
    assert verdict(version, prefix_hits=64) is Verdict.INVALID


def test_since_0_26_a_lookup_counts_once() -> None:
    assert verdict("0.26.0", prefix_queries=400) is Verdict.INVALID


def test_a_development_build_may_or_may_not_bring_prompts_with_prompt_logprobs() -> None:
    assert brings_prompts_for_logprobs(DEVELOPMENT) is None
    assert (brings_prompts_for_logprobs("0.26.0"), brings_prompts_for_logprobs("0.32.0")) == (True, False)


def test_rules_of_older_releases_do_not_apply_to_a_newer_one() -> None:
    script = Script(deployed(NIXL))
    script.ask(prompt(100))
    assert not any(one.counted_again or one.at_least for one in script.expect().values())
