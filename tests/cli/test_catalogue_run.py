"""The catalogue on the command line: deployments, flags, and the table at the end of a run."""

import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counted_run import DEPLOYMENT, history

from harness.catalogue.launching import build_target
from harness.catalogue.presets import PRESETS
from harness.catalogue.registry import CATALOGUE
from harness.checkers import judge, judge_rest, judge_scenario, seconds_of
from harness.checkers.completion import completion
from harness.cli.catalogue import target_of
from harness.cli.main import main
from harness.cli.options import parse
from harness.errors import UsageError
from harness.facts import Connector, Role
from harness.history import Ended, History, Outcome, RunEnded, RunStarted, Sent
from harness.reports.assertion import explain
from harness.reports.catalogue import Row, catalogue_lines, overall, print_catalogue, tally
from harness.reports.files.catalogue_junit import catalogue_junit
from harness.scenario import Request, Situation
from harness.verdict import Bounds, Check, Comparison, FaultSign, Finding, Judgement, KnownFault, Outputs, Verdict


def judged(verdict: Verdict, *comparisons: Comparison) -> Judgement:
    return Judgement((Check("token_sources", verdict, "a summary", comparisons),), Outputs(2, 2))


VALID = Row("cold_decode", "hits", "multi", judged(Verdict.VALID), requests=2, seconds=1.25)
INVALID = Row("short_prompt", "lengths", "multi", judged(Verdict.INVALID), requests=1, seconds=0.5)
SKIPPED = Row("two_by_two", "topology", "multi", skipped="it needs 2 prefill servers, and there are 1")
FAULT = KnownFault((FaultSign("token_sources"),), ("0.32.0",), ("cpu",), "it loses the tail")
FAULTY = replace(INVALID, known_fault=FAULT, deployment=replace(DEPLOYMENT, device="cpu"))


# Flags


def test_workloads_are_named_on_the_command_line() -> None:
    chosen = parse(["--workload", "lengths", "--workload", "cold_*", "--background-load", "8"]).catalogue
    assert (chosen.patterns, chosen.preset, chosen.everywhere, chosen.background) == (
        ("lengths", "cold_*"),
        None,
        False,
        8,
    )
    assert parse([]).catalogue.patterns == ()
    assert parse(["run", "--workload", "*", "--all-deployments"]).catalogue.everywhere


@pytest.mark.parametrize(
    "argv",
    [
        ["--deployment", "nixl"],
        ["--all-deployments"],
        ["--background-load", "3"],
        ["--workload", "*", "--all-deployments", "--prefill-url", "http://p", "--decode-url", "http://d"],
        ["--workload", "*", "--deployment", "nixl", "--prefill-url", "http://p", "--decode-url", "http://d"],
    ],
)
def test_flags_that_contradict_each_other_are_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(argv)


def test_list_shows_every_workload_under_its_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for entry in CATALOGUE.values():
        assert entry.family in lines
        assert any(line.split()[:1] == [entry.name] and entry.summary in line for line in lines)


def test_an_unknown_workload_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--workload", "no_such_thing"]) == 2
    assert "No workload is called 'no_such_thing'" in capsys.readouterr().err


# Presets


@pytest.mark.parametrize("preset", list(PRESETS.values()), ids=lambda preset: preset.name)
def test_a_preset_changes_only_the_fields_that_it_names(preset: Any) -> None:
    target = parse(["--decode-python", "/other/python", "--engine-arg=--mine"]).target
    built = build_target(preset, target)
    assert built is not None
    assert (built.connectors, built.prefill, built.decode) == (preset.connectors, preset.prefill, preset.decode)
    assert built.engine_args == (*preset.engine_args, "--mine"), "the user's arguments come last, and override"
    assert built.role_args[Role.DECODE] == preset.decode_args
    assert (built.model, built.device, built.attachment) == (target.model, target.device, None)


def test_the_default_deployment_is_the_default_target() -> None:
    target = parse([]).target
    assert build_target(PRESETS["multi"], target) == target
    assert target.connectors == (Connector.NIXL, Connector.OFFLOADING)


def test_different_versions_need_another_engine() -> None:
    assert build_target(PRESETS["unlike_versions"], parse([]).target) is None


# The table


def test_the_table_shows_comparisons_and_the_reasons_of_skipped_workloads() -> None:
    assert list(catalogue_lines([VALID, SKIPPED])) == [
        "valid       cold_decode  2 requests, 2/2 outputs, 0/0 counters, 1.2 s, on multi",
        "skipped     two_by_two   it needs 2 prefill servers, and there are 1",
        "2 workloads: 1 valid, 1 skipped",
    ]


def test_an_invalid_check_is_shown_under_its_row() -> None:
    lines = list(catalogue_lines([INVALID]))
    assert lines[1].strip() == "invalid token_sources: a summary"


def test_only_one_of_all_deployments_has_different_engines() -> None:
    everywhere = parse(["--workload", "*", "--all-deployments", "--decode-python", "older/bin/python"])
    unlike, multi = (target_of(PRESETS[name], everywhere) for name in ("unlike_versions", "multi"))
    assert unlike is not None
    assert multi is not None
    assert unlike.engine_pythons == {Role.PREFILL: None, Role.DECODE: "older/bin/python"}
    assert multi.engine_pythons == {Role.PREFILL: None, Role.DECODE: None}
    chosen = parse(["--workload", "*", "--deployment", "multi", "--decode-python", "older/bin/python"])
    assert target_of(PRESETS["multi"], chosen) == chosen.target


def test_skipped_rows_do_not_count_and_without_other_rows_the_verdict_is_unknown() -> None:
    assert overall([VALID, SKIPPED]) is Verdict.VALID
    assert overall([VALID, INVALID, SKIPPED]) is Verdict.INVALID
    assert overall([SKIPPED]) is Verdict.UNKNOWN


def test_a_known_fault_is_shown_and_does_not_count() -> None:
    assert overall([VALID, FAULTY]) is Verdict.VALID
    assert tally([VALID, FAULTY]) == "2 workloads: 1 valid, 1 known fault"
    assert any("loses the tail" in line for line in catalogue_lines([FAULTY]))
    more = Check("outputs", Verdict.INVALID, "3 differ")
    worse = replace(FAULTY, judgement=replace(judged(Verdict.INVALID), checks=(*judged(Verdict.INVALID).checks, more)))
    assert overall([VALID, worse]) is Verdict.INVALID, "a known fault does not excuse other checks"
    assert any("something else is wrong" in line for line in catalogue_lines([worse]))
    gone = replace(FAULTY, judgement=judged(Verdict.VALID))
    assert any("did not show" in line for line in catalogue_lines([gone]))
    unknown = replace(FAULTY, judgement=judged(Verdict.UNKNOWN))
    assert overall([VALID, unknown]) is Verdict.UNKNOWN, "a known fault does not excuse an unknown verdict"


def test_without_a_terminal_the_table_is_plain_lines() -> None:
    stream = io.StringIO()
    print_catalogue([VALID, SKIPPED], stream=stream)
    assert stream.getvalue().splitlines() == list(catalogue_lines([VALID, SKIPPED]))


# Assertion messages


def test_an_assertion_shows_expected_beside_observed() -> None:
    wrong = Comparison("cold_decode", "cold", "decode-0", "external_kv_transfer", Bounds.exactly(101), 0.0)
    right = replace(wrong, counter="prompt_tokens", observed=101.0)
    unread = replace(wrong, counter="nixl_bytes", observed=None, why_unknown="there is no reading")
    check = Check("token_sources", Verdict.INVALID, "lost", (wrong, right, unread), (Finding("r-1", "differs"),))
    assert explain("cold_decode", Judgement((check,))).splitlines() == [
        "cold_decode is invalid",
        "  invalid token_sources: lost",
        "    cold: decode-0 external_kv_transfer: expected 101, observed 0 (-101)",
        "    cold: decode-0 nixl_bytes: expected 101; there is no reading",
        "    r-1: differs",
    ]


# One scenario of a run


def test_a_scenario_is_judged_by_its_own_entries() -> None:
    run = history()
    names = {operation.sent.scenario for operation in run.operations()}
    whole = judge(DEPLOYMENT, run)
    for name in names:
        part = judge_scenario(DEPLOYMENT, run, whole, name)
        assert part.comparisons == whole.comparisons
        assert part.outputs == whole.outputs
        assert seconds_of(run, name) > 0
    nothing = judge_scenario(DEPLOYMENT, run, whole, "another")
    assert nothing.verdict is not Verdict.VALID
    assert nothing.comparisons == ()


def test_the_condition_that_a_scenario_provokes_must_occur() -> None:
    run = history()
    (name,) = {operation.sent.scenario for operation in run.operations()}
    whole = judge(DEPLOYMENT, run)

    def provoked(counter: str) -> Verdict:
        checks = judge_scenario(DEPLOYMENT, run, whole, name, provokes=Situation((counter,))).checks
        return next(check.verdict for check in checks if check.name == "provoked")

    assert provoked("external_kv_transfer") is Verdict.VALID
    assert provoked("preemptions") is Verdict.UNKNOWN


# Refusals


def refusal(status: int | None, outcome: Outcome, expected: int | None = 400) -> Check:
    request = Request("too-long", (1,), expect_status=expected)
    served = Request("served", (1,))
    entries = (
        RunStarted(0.0, (), 0, "", None, ()),
        Sent(0.0, served, "s", "p", 0.0),
        Sent(0.0, request, "s", "p", 0.0),
        Ended(1.0, "served", Outcome.OK, status=200),
        Ended(1.0, "too-long", outcome, "" if outcome is Outcome.OK else "too long", status),
        RunEnded(2.0),
    )
    return completion(DEPLOYMENT, History(entries))


def test_an_expected_refusal_is_valid() -> None:
    check = refusal(400, Outcome.FAIL)
    assert check.verdict is Verdict.VALID
    assert check.summary == "1 of 1 requests completed, 1 were to be refused"
    assert refusal(400, Outcome.INFO).verdict is Verdict.VALID, "refused by decode after prefill succeeded"


@pytest.mark.parametrize(
    ("status", "outcome", "verdict"),
    [
        (200, Outcome.OK, Verdict.INVALID),
        (500, Outcome.INFO, Verdict.INVALID),
        (404, Outcome.FAIL, Verdict.INVALID),
        (None, Outcome.INFO, Verdict.UNKNOWN),
    ],
)
def test_another_end_than_the_expected_refusal_is_not_valid(
    status: int | None, outcome: Outcome, verdict: Verdict
) -> None:
    check = refusal(status, outcome)
    assert check.verdict is verdict
    assert "expected HTTP 400" in check.findings[0].text


# JUnit


def test_junit_has_one_case_for_each_workload() -> None:
    unknown = Row("cold", "hits", "multi", judged(Verdict.UNKNOWN), requests=1)
    written = catalogue_junit([VALID, INVALID, SKIPPED, FAULTY, unknown])
    suite = ET.fromstring(written)[0]  # noqa: S314 - our own
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "2",
    }
    cases = [(case.get("classname"), case.get("name"), [child.tag for child in case]) for case in suite]
    assert cases == [
        ("pd-harness.multi.hits", "cold_decode", ["system-out"]),
        ("pd-harness.multi.lengths", "short_prompt", ["failure", "system-out"]),
        ("pd-harness.multi.topology", "two_by_two", ["skipped"]),
        ("pd-harness.multi.lengths", "short_prompt", ["skipped", "system-out"]),
        ("pd-harness.multi.hits", "cold", ["error", "system-out"]),
    ]
    assert suite[0][0].text == "valid: 2/2 outputs, 0/0 counters"
    assert "invalid token_sources: a summary" in str(suite[1][0].get("message"))
    assert suite[2][0].get("message") == SKIPPED.skipped
    assert "known fault of vLLM 0.32.0 on cpu: it loses the tail" in str(suite[3][0].get("message"))


@pytest.mark.slow
def test_the_command_line_writes_junit_and_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = tmp_path / "cases.xml"
    where = ["--engine", "sim", "--num-warmups", "1", "--result-dir", str(tmp_path), "--junit", str(junit), "--plain"]
    assert main(["--workload", "short_prompt", "--workload", "two_by_two", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 workloads: 1 valid, 1 skipped"
    cases = ET.parse(junit).iter("testcase")  # noqa: S314 - our own
    assert [case.get("name") for case in cases] == ["short_prompt", "two_by_two"]


# Findings outside of all workloads


def test_failed_checks_that_belong_to_no_workload_have_a_row_of_their_own() -> None:
    held = Check("streaming", Verdict.INVALID, "one answer was held back")
    slow = Check("client_health", Verdict.UNKNOWN, "the client was at its limit")
    whole = Judgement((held, slow, Check("token_sources", Verdict.INVALID, "lost")))
    rest = judge_rest(DEPLOYMENT, history(), whole, {"a": judged(Verdict.INVALID), "b": judged(Verdict.VALID)})
    assert rest is not None
    assert rest.checks == (held, slow)
    assert judge_rest(DEPLOYMENT, history(), judged(Verdict.VALID), {}) is None
