"""The ready Grafana dashboard asks only for metrics, labels and values that a run's results have."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, VALID, compared

from harness.reports import LoadSettings, make_report
from harness.reports.files.prometheus import results_text
from harness.reports.requests import request_rows
from harness.verdict import Judgement

FILE = Path(__file__).parent.parent.parent / "examples" / "grafana" / "pd-harness.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
SELECTOR = re.compile(r"(pd_harness_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
VARIABLES = {"datasource", "label"}
OF_GRAFANA = {"__name__", "Time", "Value", "job", "instance", "exported_job"}


def written() -> dict[str, dict[str, set[str]]]:
    """Values of labels by metric, as a run writes them."""
    moved = compared("decode-0", "nixl_bytes", 5, 5.0)
    checks = (*INVALID.checks, replace(VALID.checks[0], name="nixl_bytes", comparisons=(moved,)))
    made = make_report(DEPLOYMENT, HISTORY, Judgement(checks), load=LoadSettings(2, label="a", goodput={"ttft": 1.0}))
    text = results_text(made, request_rows(DEPLOYMENT, HISTORY, made.judgement)).decode()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


WRITTEN = written()


def targets(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel["targets"]


def faults(expression: str, legend: str = "") -> Iterator[str]:
    """What an expression or its legend names that no run writes."""
    every: set[str] = set()
    for metric, matchers in SELECTOR.findall(expression):
        labels = WRITTEN.get(metric)
        if labels is None:
            yield f"no metric {metric}"
            continue
        every |= set(labels)
        for name, kind, value in MATCHER.findall(matchers):
            if name not in labels:
                yield f"{metric} has no label {name}"
            elif not value.startswith("$") and not {*(value.split("|") if "~" in kind else [value])} <= labels[name]:
                yield f"{metric} has no {name} {value}"
    for names in re.findall(r"by \(([^)]*)\)", expression):
        yield from (f"no label {name} to sum by" for name in re.split(r",\s*", names) if name not in every)
    yield from (f"no label {name} for the legend" for name in re.findall(r"\{\{(\w+)\}\}", legend) if name not in every)


@pytest.mark.parametrize("target", list(targets(DASHBOARD)), ids=lambda target: str(target["expr"])[:60])
def test_a_panel_asks_for_what_a_run_writes(target: dict[str, Any]) -> None:
    assert SELECTOR.search(target["expr"])
    assert list(faults(target["expr"], target["legendFormat"])) == []


@pytest.mark.parametrize(
    ("expression", "legend"),
    [
        ("pd_harness_ttft_ms", ""),
        ('pd_harness_outputs{state="wrong"}', ""),
        ('pd_harness_outputs{status="bad"}', ""),
        ('pd_harness_outputs{status=~"wrong|bad"}', ""),
        ("sum by (host) (pd_harness_outputs)", ""),
        ("pd_harness_outputs", "{{server}}"),
    ],
)
def test_what_no_run_writes_is_found(expression: str, legend: str) -> None:
    assert list(faults(expression, legend))


def test_each_family_of_metrics_that_matters_is_shown() -> None:
    shown = {metric for target in targets(DASHBOARD) for metric, _ in SELECTOR.findall(target["expr"])}
    wanted = "run_verdict check_verdict ttft_seconds requests_per_second outputs prompt_tokens transferred_bytes"
    assert {f"pd_harness_{name}" for name in [*wanted.split(), "expected_transferred_bytes"]} <= shown


def test_it_can_be_imported_anywhere() -> None:
    """A fixed uid makes a second import replace the first; the data source is chosen by the reader."""
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("pd-harness", "pd-harness")
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables.keys() == VARIABLES
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    asked = variables["label"]["query"]["query"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", asked).groups()  # type: ignore[union-attr]
    assert label in WRITTEN[metric]
    sources = [panel["datasource"] for panel in DASHBOARD["panels"]]
    sources += [target["datasource"] for target in targets(DASHBOARD)]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) <= VARIABLES | {"__all"}


def test_its_table_names_columns_that_are_there() -> None:
    (table,) = (panel for panel in DASHBOARD["panels"] if panel["type"] == "table")
    (organized,) = table["transformations"]
    assert set(organized["options"]["indexByName"]) == set(WRITTEN["pd_harness_run_info"])
    assert set(organized["options"]["excludeByName"]) <= OF_GRAFANA


def test_panels_have_numbers_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for at in (panel["gridPos"],)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_colours_are_those_of_the_numbers_in_the_expression() -> None:
    """0 is valid, 1 unknown, 2 invalid."""
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "state-timeline":
            (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
            assert {key: one["text"] for key, one in mapping["options"].items()} == {
                "0": "valid", "1": "unknown", "2": "invalid",
            }  # fmt: skip
            (target,) = panel["targets"]
            asked = re.sub(r'label=~"\$label",', "", target["expr"])
            metric, _ = SELECTOR.findall(asked)[0]
            assert asked.endswith(f'({metric}{{verdict="unknown"}} or 2 * {metric}{{verdict="invalid"}})')
