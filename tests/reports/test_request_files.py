"""The load's requests as CSV and Parquet, read back by other programs' libraries."""

import csv
import io
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from run_fixtures import DEPLOYMENT, HISTORY, VALID

from harness.errors import UsageError
from harness.history import Ending, Outcome
from harness.reports import LoadSettings, Report, make_report
from harness.reports.files import parquet_file
from harness.reports.files.columns import COLUMNS
from harness.reports.files.csv_file import requests_csv
from harness.reports.files.parquet_file import requests_parquet, require_pyarrow
from harness.reports.requests import OutputStatus, RequestRow, request_rows

NAMES = [
    *("request_id", "scenario", "phase", "due_s", "sent_s", "first_token_s", "ended_s", "ttft_ms", "tpot_ms", "e2e_ms"),
    *("proxy_ms", "prefill_ms", "outcome", "ending", "http_status", "cause", "prompt_tokens", "output_tokens"),
    *("prefill_server", "decode_server", "output", "why", "wrong_token", "wrong_block", "owner"),
]
"""A promise to whoever reads such files: see columns.py before you change it."""

RIGHT, FAILED = request_rows(DEPLOYMENT, HISTORY, VALID)
WRONG = replace(
    RIGHT, request_id="load-2", output=OutputStatus.WRONG, why='a "wrong", token', token=0, block=2, owner="load-1",
    proxy_seconds=0.0015, prefill_seconds=0.25, cause="",
)  # fmt: skip
HOSTILE = "=cmd|' /C calc'!A0"


def report() -> Report:
    return make_report(DEPLOYMENT, HISTORY, VALID, Path("/runs/one"), LoadSettings(2, label="nightly"))


def read_csv(*rows: RequestRow) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(requests_csv(rows)), strict=True))


def read_parquet(*rows: RequestRow) -> pa.Table:
    return parquet.read_table(io.BytesIO(requests_parquet(rows, report().identity)))


def test_the_columns_are_those_that_were_promised() -> None:
    assert requests_csv(()).splitlines() == [",".join(NAMES)]
    assert read_parquet().column_names == NAMES


def test_every_field_of_a_row_is_in_a_column() -> None:
    """Each field, changed, changes the file."""
    other = RequestRow(
        "x", "x", "x", 9.0, 9.0, 9.0, 9.0, Outcome.FAIL, Ending.CUT, 9, "x", 9, 9, "x", "x", 9.0, 9.0,
        OutputStatus.TIE, "x", 9, 9, "x", 9.0,
    )  # fmt: skip
    same = [
        field.name
        for field in fields(RequestRow)
        if requests_csv([replace(WRONG, **{field.name: getattr(other, field.name)})]) == requests_csv([WRONG])
    ]
    assert same == []


def test_a_row_of_csv_in_seconds_and_milliseconds() -> None:
    """The request was due at 1 s; its tokens came at 1.2, 1.3 and 1.5 s."""
    right, failed, wrong = read_csv(RIGHT, FAILED, WRONG)
    assert float(right["first_token_s"]) == pytest.approx(1.2)
    assert [float(right[name]) for name in ("ttft_ms", "tpot_ms", "e2e_ms")] == pytest.approx([200, 150, 500])
    assert (right["outcome"], right["http_status"], right["output"]) == ("ok", "200", "right")
    assert (failed["ttft_ms"], failed["first_token_s"], failed["wrong_token"], failed["owner"]) == ("", "", "", "")
    assert (failed["outcome"], failed["cause"], failed["output"]) == ("info", "500: engine died", "no output")
    assert (wrong["why"], wrong["wrong_token"], wrong["wrong_block"]) == ('a "wrong", token', "0", "2")
    assert (float(wrong["proxy_ms"]), float(wrong["prefill_ms"])) == (1.5, 250.0)


@pytest.mark.parametrize("text", [HOSTILE, "+1", "-1", "@SUM(A1)", "\uff1d1", " \t=1", "\r\n=1", "\x00\x1b=1"])
def test_a_text_of_csv_is_never_a_formula(text: str) -> None:
    row = replace(RIGHT, request_id=text, cause=text, why=text, decode_server=text, owner=text, scenario=text)
    (read,) = read_csv(row)
    for name in ("request_id", "cause", "why", "decode_server", "owner", "scenario"):
        assert read[name][0] in ("'", "\ufffd")
    assert len(requests_csv([row]).splitlines()) == 2, "no text begins another line"


def test_numbers_of_csv_stay_numbers() -> None:
    (read,) = read_csv(replace(RIGHT, due=-1.5, sent=-1.25))
    assert (read["due_s"], read["sent_s"]) == ("-1.5", "-1.25")


def test_a_harmless_text_is_as_it_is() -> None:
    (read,) = read_csv(replace(RIGHT, cause="a = b, 5 - 3"))
    assert read["cause"] == "a = b, 5 - 3"


def test_parquet_has_types_and_nulls() -> None:
    table = read_parquet(RIGHT, FAILED, WRONG)
    types = {field.name: str(field.type) for field in table.schema}
    assert {name for name, kind in types.items() if kind == "int64"} == {
        *("http_status", "prompt_tokens", "output_tokens", "wrong_token", "wrong_block"),
    }
    assert {name for name, kind in types.items() if kind == "double"} == {
        name for name in NAMES if name.endswith(("_s", "_ms"))
    }
    assert table["ttft_ms"].to_pylist() == [pytest.approx(200), None, pytest.approx(200)]
    assert table["http_status"].to_pylist() == [200, 500, 200]
    assert table["wrong_block"].to_pylist() == [None, None, 2]
    assert table["output"].to_pylist() == ["right", "no output", "wrong"]


def test_parquet_keeps_a_text_that_csv_must_change() -> None:
    assert read_parquet(replace(RIGHT, cause=HOSTILE))["cause"].to_pylist() == [HOSTILE]


def test_both_files_hold_the_same() -> None:
    rows = (RIGHT, FAILED, WRONG)
    for one, other in zip(read_csv(*rows), read_parquet(*rows).to_pylist(), strict=True):
        assert one == {name: "" if value is None else str(value) for name, value in other.items()}


def test_parquet_without_a_request_has_all_columns_with_their_types() -> None:
    assert read_parquet().schema.equals(read_parquet(RIGHT).schema)
    assert read_parquet().num_rows == 0


def test_the_metadata_say_which_run_it_is() -> None:
    metadata = {key.decode(): value.decode() for key, value in (read_parquet(RIGHT).schema.metadata or {}).items()}
    assert metadata["pd_harness.verdict"] == "valid"
    assert metadata["pd_harness.run"] == "one"
    assert metadata["pd_harness.label"] == "nightly"
    assert metadata["pd_harness.started"] == "2026-01-02T03:04:05+00:00"
    assert (metadata["pd_harness.seed"], metadata["pd_harness.engine_version"]) == ("7", "0.32.0")
    assert "sesame" not in str(metadata)
    described = read_parquet().schema.field("wrong_block").metadata
    assert described == {b"description": b"number of the first wrong KV block of the prompt, from 1"}
    assert len({column.text for column in COLUMNS}) == len(COLUMNS)


def test_a_number_that_no_file_can_hold_is_left_out() -> None:
    """A server's answer may claim any number of tokens."""
    assert read_parquet(replace(RIGHT, prompt_tokens=10**30))["prompt_tokens"].to_pylist() == [None]
    assert read_parquet(replace(RIGHT, cause="a\ud800b"))["cause"].to_pylist() == ["a\ufffdb"]


def test_without_pyarrow_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pyarrow()
    monkeypatch.setattr(parquet_file, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install pd-harness\[parquet\]"):
        require_pyarrow()
