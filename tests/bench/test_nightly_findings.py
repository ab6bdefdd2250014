"""What the page says of the nights: first bad night, changes with what was new, and no markup of a server's."""

from pathlib import Path

import pytest
from made_nights import Nights

from bench.nightly.beside import last_good
from bench.nightly.calendar import calendar
from bench.nightly.charts import new_versions
from bench.nightly.findings import findings, first_bad, standing
from bench.nightly.page import index, night_page
from bench.nightly.record import Compared, Night, Result, State
from bench.nightly.series import all_series, bad_since
from bench.nightly.summary import markdown

HOSTILE = "</script><img src=x onerror=alert(1)>|[x](javascript:y) @here"


def said(nights: tuple[Night, ...]) -> list[str]:
    return [one.text for one in findings(nights, all_series(nights))]


def test_a_slower_engine_is_named_with_its_night() -> None:
    nights = Nights(40, slower={0: 1.0, 25: 1.12}, engines={0: "vllm 0.32.0", 25: "vllm 0.33.0"}).make()
    (text,) = said(nights)
    assert text.startswith("p99 TTFT of steady rose by ")
    assert text.endswith("at the night of 2026-01-26, the first with vllm 0.33.0.")
    assert abs(int(text.split()[6]) - 12) <= 1


def test_a_night_that_failed_between_hides_no_new_engine() -> None:
    nights = Nights(40, slower={0: 1.0, 25: 1.3}, engines={0: "vllm 1", 24: "vllm 2"}, failed={24: "full"}).make()
    assert said(nights)[0].endswith("at the night of 2026-01-26, the first with vllm 2.")


def test_even_nights_say_nothing() -> None:
    nights = Nights(40).make()
    assert said(nights) == []
    assert first_bad(nights) == ""
    assert standing(nights) == "The last 40 nights were valid."


def test_wrong_outputs_are_dated_to_their_first_night() -> None:
    nights = Nights(40, wrong=[5, 34, 36, 39]).make()
    assert said(nights) == [
        "Outputs of burst are wrong since the night of 2026-02-04 (in 3 of 6 nights; 28 nights before that had none)."
    ]
    assert first_bad(nights) == "2026-02-04"
    assert standing(nights).startswith(
        "Not valid since the night of 2026-02-09 (1 night). The last good night was 2026-02-08"
    )


@pytest.mark.parametrize(
    ("wrong", "first"), [([], None), ([34], None), ([35], "2026-02-05"), (range(40), "2026-01-01")]
)
def test_wrong_outputs_are_over_after_five_clean_nights(wrong: list[int], first: str | None) -> None:
    bad = bad_since(Nights(40, wrong=list(wrong)).make(), "burst", "wrong_outputs")
    assert (bad and bad.first.name) == first


def test_nights_on_another_deployment_are_left_out_of_a_series() -> None:
    nights = Nights(30, slower={0: 2.0, 8: 1.0}).make()
    for night in nights[:8]:
        for run in night.runs:
            run.deployment = {"engine": "other"}
    (series,) = [one for one in all_series(nights) if one.title == "p99 TTFT of steady"]
    assert (len(series.points), series.left_out, series.changes) == (22, 8, ())


def test_the_last_good_night_is_valid_and_on_the_same_deployment() -> None:
    nights = Nights(6, wrong=[3], failed={2: "full"}).make()
    for run in nights[4].runs:
        run.deployment = {"engine": "other"}
    found = last_good(nights, nights[5])
    assert found is nights[1]
    assert last_good(nights[:1], nights[0]) is None


def compared(*, unknown: bool, file: str) -> Compared:
    return Compared("steady", worse=False, unknown=unknown, lines=["headline"], file=file)


@pytest.mark.parametrize(
    ("comparisons", "baseline"),
    [
        ([compared(unknown=True, file="")], True),
        ([compared(unknown=True, file=""), compared(unknown=False, file="compare-burst.json")], True),
        ([compared(unknown=True, file="compare-steady.json")], False),
    ],
)
def test_a_night_that_had_nothing_to_compare_with_is_a_baseline(comparisons: list[Compared], baseline: bool) -> None:
    """It is unknown with --fail-on, and so would every later night be. One that was compared and may be worse is none.

    Neither is one whose runs are not all there and valid.
    """
    first, second = Nights(2).make()
    first.result, first.exit_code, first.comparisons = Result.UNKNOWN, 3, comparisons
    assert not first.good
    assert last_good((first, second), second) is (first if baseline else None)
    first.runs[0].result = Result.UNKNOWN
    assert last_good((first, second), second) is None
    del first.runs[0]
    assert last_good((first, second), second) is None


def test_new_versions_are_marked_and_many_commits_are_not() -> None:
    nights = Nights(12, engines={0: "vllm 1", 6: "vllm 2"}).make()
    nights[9].harness_version = "0.2.0"
    assert [(night.name, text) for night, text in new_versions(nights)] == [
        ("2026-01-07", "vllm 2"),
        ("2026-01-10", "harness aaaaaaa"),
        ("2026-01-11", "harness aaaaaaa"),
    ]
    for number, night in enumerate(nights):
        night.commit, night.harness_version = str(number), "0.1.0"
    assert [text for _, text in new_versions(nights)] == ["vllm 2"]


def test_the_calendar_has_every_day_up_to_the_newest_night() -> None:
    days = calendar(Nights(20, missing=[4, 5], wrong=[19], failed={7: "full"}).make()).days
    kinds = {day.label[:10]: day.kind for day in days}
    assert (kinds["2026-01-05"], kinds["2026-01-08"], kinds["2026-01-20"]) == ("none", "failed", "invalid")
    # 2026-01-01 was a Thursday; row 2 is Monday.
    assert next((day.row, day.column) for day in days if day.name == "2026-01-01") == (5, 1)
    assert next((day.row, day.column) for day in days if day.name == "2026-01-20") == (3, 4)


@pytest.mark.parametrize("number", [0, 1, 2, 30])
def test_pages_of_few_and_of_many_nights_are_made(number: int) -> None:
    page = index(Nights(number).make())
    assert page.startswith("<!DOCTYPE html>")
    assert page.count('<tr data-kind="valid"') == number


def test_a_night_that_goes_on_is_on_the_page() -> None:
    nights = Nights(2).make()
    nights[1].state, nights[1].ended = State.RUNNING, ""
    assert "RUNNING" in index(nights)


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    """Reasons quote servers; names come from files."""
    nights = Nights(22, wrong=[21]).make()
    for night in nights:
        night.reasons, night.words = [HOSTILE], [HOSTILE]
        for run in night.runs:
            run.engine_version, run.reasons = HOSTILE, [HOSTILE]
    for page in (index(nights), night_page(nights[21], tmp_path)):
        assert "<img" not in page
        assert page.count("</script>") == page.count("<script")
    text = markdown(nights[21])
    assert "<img" not in text
    assert "](javascript" not in text


def test_links_lead_to_reports_that_exist(tmp_path: Path) -> None:
    night = Nights(1).make()[0]
    night.runs[0].directories = ["steady-1/20260101T000000Z-steady"]
    place = tmp_path / "steady-1" / "20260101T000000Z-steady"
    place.mkdir(parents=True)
    (place / "report.html").write_text("")
    page = night_page(night, tmp_path)
    assert 'href="steady-1/20260101T000000Z-steady/report.html"' in page
    assert "result.json" not in page
