"""A run's results as Prometheus metrics, read back by Prometheus's own parser."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, UNKNOWN, VALID, compared, entries

from harness.history import History, RunEnded
from harness.reports import LoadSettings, Report, Row, make_report
from harness.reports.files.prometheus import results_text
from harness.reports.requests import request_rows
from harness.verdict import Bounds, Check, Judgement, Outputs, Verdict

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def report(
    judgement: Judgement,
    *,
    label: str = "nightly",
    history: History = HISTORY,
    rows: tuple[Row, ...] = (),
    **more: object,
) -> Report:
    settings = LoadSettings(2, label=label, **more)  # type: ignore[arg-type] # as named
    return make_report(DEPLOYMENT, history, judgement, Path("/runs/one"), settings, rows=rows)


def text_of(made: Report) -> str:
    rows = request_rows(made.deployment, made.history, made.judgement)
    return results_text(made, rows).decode()


def families(made: Report) -> list[Metric]:
    return list(text_string_to_metric_families(text_of(made)))


def samples(made: Report) -> Samples:
    """Each value by name and labels, without the label that all have."""
    return {
        (one.name, tuple(sorted((key, value) for key, value in one.labels.items() if key != "label"))): one.value
        for family in families(made)
        for one in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"pd_harness_{name}", tuple(sorted(labels.items()))))


@pytest.mark.parametrize("judgement", [VALID, INVALID, UNKNOWN])
def test_a_verdict_is_one_series_of_three(judgement: Judgement) -> None:
    found = samples(report(judgement))
    assert {word: value(found, "run_verdict", verdict=word) for word in Verdict} == {
        word: float(word is judgement.verdict) for word in Verdict
    }
    for check in judgement.checks:
        assert value(found, "check_verdict", check=check.name, verdict=check.verdict) == 1
        assert sum(value(found, "check_verdict", check=check.name, verdict=word) or 0 for word in Verdict) == 1


def test_latencies_are_summaries_in_seconds() -> None:
    """One request completed: due at 1 s, tokens at 1.2, 1.3 and 1.5 s."""
    found = samples(report(VALID))
    for quantile in ("0.5", "0.9", "0.95", "0.99"):
        assert value(found, "ttft_seconds", quantile=quantile) == pytest.approx(0.2)
        assert value(found, "e2e_seconds", quantile=quantile) == pytest.approx(0.5)
        assert value(found, "tpot_seconds", quantile=quantile) == pytest.approx(0.15)
    assert value(found, "itl_seconds_count") == 2
    assert value(found, "itl_seconds_sum") == pytest.approx(0.3)
    assert value(found, "itl_seconds", quantile="0.5") == pytest.approx(0.15)
    assert {family.name: family.type for family in families(report(VALID)) if family.type != "gauge"} == {
        f"pd_harness_{name}_seconds": "summary" for name in ("ttft", "tpot", "itl", "e2e")
    }


def test_requests_outputs_rates_and_times() -> None:
    """Of two requests one completed with three tokens and four of prompt, in a second; the other got a 500."""
    found = samples(report(VALID))
    assert [value(found, "requests", outcome=one) for one in ("ok", "fail", "info")] == [1, 0, 1]
    assert (value(found, "outputs", status="right"), value(found, "outputs", status="no output")) == (1, 1)
    assert value(found, "outputs", status="wrong") == 0
    assert value(found, "requests_per_second") == pytest.approx(1 / 1.0)
    assert value(found, "output_tokens_per_second") == pytest.approx(3 / 1.0)
    assert value(found, "tokens_per_second") == pytest.approx(7 / 1.0)
    assert value(found, "run_started_timestamp_seconds") == 1767323045
    assert value(found, "run_ended_timestamp_seconds") == 1767323049


def test_expected_and_observed_by_server() -> None:
    parts = (compared("decode-0", "nixl_bytes", Bounds(90, 110), 100.0), compared("decode-0", "local_compute", 5, 7.0))
    found = samples(report(Judgement((Check("c", Verdict.INVALID, "", parts),))))
    nixl = {"server": "decode-0", "transfer": "nixl"}
    assert value(found, "transferred_bytes", **nixl) == 100
    assert value(found, "expected_transferred_bytes", bound="min", **nixl) == 90
    assert value(found, "expected_transferred_bytes", bound="max", **nixl) == 110
    source = {"server": "decode-0", "source": "local_compute"}
    assert value(found, "prompt_tokens", **source) == 7
    assert value(found, "expected_prompt_tokens", bound="max", **source) == 5


def test_what_is_not_known_is_left_out() -> None:
    parts = (compared("decode-0", "nixl_bytes", None, None, "no scrape"),)
    nothing = Judgement((Check("c", Verdict.UNKNOWN, "", parts),), Outputs())
    killed = History(tuple(one for one in entries()[:2] if not isinstance(one, RunEnded)))
    found = samples(report(nothing, history=killed))
    names = {name for name, _ in found}
    assert not {name for name in names if "bytes" in name or name.endswith("_seconds_sum") or "ended" in name}
    assert value(found, "run_verdict", verdict="unknown") == 1
    assert "nan" not in text_of(report(nothing, history=killed)).lower()


def test_goodput_is_there_if_objectives_were_given() -> None:
    assert value(samples(report(VALID)), "good_requests_per_second") is None
    assert value(samples(report(VALID, goodput={"ttft": 300.0})), "good_requests_per_second") == pytest.approx(1.0)
    assert value(samples(report(VALID, goodput={"ttft": 100.0})), "good_requests_per_second") == 0


def test_the_facts_are_labels_of_one_series() -> None:
    (info,) = (one for one in families(report(VALID)) if one.name == "pd_harness_run_info")
    (sample,) = info.samples
    assert sample.value == 1
    assert (sample.labels["model"], sample.labels["seed"], sample.labels["label"]) == ("canary", "7", "nightly")
    assert (sample.labels["harness_version"], sample.labels["engine_version"]) == ("0.1.0", "0.32.0")
    assert "sesame" not in text_of(report(VALID))


def test_workloads_have_their_words() -> None:
    judged = Judgement((Check("outputs", Verdict.INVALID, ""),))
    rows = (Row("cold", "hits", "multi", judged), Row("two", "topology", "multi", skipped="it needs more"))
    found = samples(report(judged, rows=rows))
    assert value(found, "workload_verdict", workload="cold", deployment="multi", verdict="invalid") == 1
    assert value(found, "workload_verdict", workload="cold", deployment="multi", verdict="valid") == 0
    assert value(found, "workload_verdict", workload="two", deployment="multi", verdict="skipped") == 1


def test_a_hostile_label_is_one_label() -> None:
    label = 'a"} 1\npd_harness_run_verdict{verdict="valid'
    made = report(INVALID, label=label)
    assert value(samples(made), "run_verdict", verdict="valid") == 0
    assert {one.labels["label"] for family in families(made) for one in family.samples} == {" ".join(label.split())}


# The rules that `promtool check metrics` holds metrics to, and those of the node exporter.


def _offences(family: Metric) -> Iterator[str]:
    name = family.name
    labels = {label for one in family.samples for label in one.labels}
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or "__" in name:
        yield "is not in snake case"
    if not family.documentation.endswith("."):
        yield "has no help text"
    if re.search(r"_(ms|milliseconds|minutes|kilobytes|kb|mb|percent|micros)(_|$)", name):
        yield "has no base unit"
    if family.type == "gauge" and name.endswith(("_total", "_count", "_sum", "_bucket")):
        yield "has the ending of another type"
    if re.search(r"_(gauge|counter|summary|histogram)(_|$)", name):
        yield "has its type in its name"
    if family.type != "summary" and "quantile" in labels:
        yield "has the label of a summary"
    if labels & {"le", "job", "instance"} or any(label.startswith("__") for label in labels):
        yield "has a label that Prometheus sets"
    if len({(one.name, *sorted(one.labels.items())) for one in family.samples}) != len(family.samples):
        yield "has a series twice"


def test_names_and_labels_keep_prometheus_rules() -> None:
    rows = (Row("cold", "hits", "multi", VALID),)
    for made in (report(VALID, goodput={"ttft": 1.0}), report(INVALID), report(VALID, rows=rows)):
        found = families(made)
        assert [f"{family.name} {why}" for family in found for why in _offences(family)] == []
        assert len({family.name for family in found}) == len(found)
        assert not [line for line in text_of(made).splitlines() if re.search(r"\} \S+ \d+$", line)], "no time stamps"


@pytest.mark.parametrize(
    "text",
    [
        "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n",
        "# HELP a_count A.\n# TYPE a_count gauge\na_count 1\n",
        '# HELP a A.\n# TYPE a gauge\na{quantile="0.5"} 1\n',
        '# HELP a A.\n# TYPE a gauge\na{job="x"} 1\n',
        "# TYPE a gauge\na 1\n",
        "# HELP aB A.\n# TYPE aB gauge\naB 1\n",
    ],
)
def test_a_metric_that_breaks_a_rule_is_found(text: str) -> None:
    assert [why for family in text_string_to_metric_families(text) for why in _offences(family)]


def test_one_run_differs_from_another_by_its_label_only() -> None:
    """So that the files of two runs can lie beside each other."""
    names = [set(samples(report(VALID, label=label))) for label in ("a", "b")]
    assert names[0] == names[1]
    both = text_of(report(VALID, label="a")).splitlines(), text_of(report(VALID, label="b")).splitlines()
    assert not {line for line in both[0] if not line.startswith("#")} & set(both[1])


def test_the_time_of_the_run_is_that_of_its_history() -> None:
    later = History((replace(entries()[0], wall=2000000000.0), *entries()[1:]))  # type: ignore[type-var]
    assert value(samples(report(VALID, history=later)), "run_started_timestamp_seconds") == 2e9
