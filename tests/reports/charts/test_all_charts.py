"""Charts of whole runs: each is a specification that compiles, with its data and a description."""

import pytest
import vl_convert
from run_fixtures import DEPLOYMENT, HISTORY, STARTED, VALID

from harness.history import History
from harness.reports import make_report
from harness.reports.charts import Chart, charts_of
from harness.verdict import Judgement


@pytest.fixture(scope="module")
def charts() -> tuple[Chart, ...]:
    return charts_of(make_report(DEPLOYMENT, HISTORY, VALID))


def test_every_chart_compiles_to_vega(charts: tuple[Chart, ...]) -> None:
    assert [chart.name for chart in charts][:2] == ["in-flight", "timeline"]
    for chart in charts:
        assert vl_convert.vegalite_to_vega(dict(chart.spec))["marks"]


def test_a_run_without_requests_has_no_charts() -> None:
    assert charts_of(make_report(DEPLOYMENT, History((STARTED,)), Judgement(()))) == ()
