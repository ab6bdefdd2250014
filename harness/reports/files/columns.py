"""The table of requests that other programs read: its columns, with a unit in the name of each that has one.

The names, their order and their types are a promise to people who read such files: new columns come at the end, and a
column that means something else gets another name. Nothing that is not known is made up: it is empty in CSV, null in
Parquet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.reports.requests import RequestRow
from harness.reports.text import clean

Value = str | int | float | None


class Kind(StrEnum):
    """The type of a column's values."""

    TEXT = "text"
    INTEGER = "integer"
    """64 bits with a sign."""
    NUMBER = "number"
    """64-bit floating point."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    of: Callable[[RequestRow], Value]
    text: str
    """What it holds."""


def _text(name: str, of: Callable[[RequestRow], str | None], text: str) -> Column:
    return Column(name, Kind.TEXT, lambda row: _clean(of(row)), text)


def _seconds(name: str, of: Callable[[RequestRow], float | None], text: str) -> Column:
    return Column(f"{name}_s", Kind.NUMBER, of, f"{text}, in seconds on the run's clock")


def _ms(name: str, of: Callable[[RequestRow], float | None], text: str) -> Column:
    def milliseconds(row: RequestRow) -> float | None:
        seconds = of(row)
        return None if seconds is None else seconds * 1000.0

    return Column(f"{name}_ms", Kind.NUMBER, milliseconds, f"{text}, in milliseconds")


def _integer(name: str, of: Callable[[RequestRow], int | None], text: str) -> Column:
    return Column(name, Kind.INTEGER, lambda row: _bounded(of(row)), text)


COLUMNS: Sequence[Column] = (
    _text("request_id", lambda row: row.request_id, "the request's id, unique in a run"),
    _text("scenario", lambda row: row.scenario, "the load, or the workload, that the request belongs to"),
    _text("phase", lambda row: row.phase, "the phase of the scenario"),
    _seconds("due", lambda row: row.due, "when the request should have been sent by the schedule"),
    _seconds("sent", lambda row: row.sent, "when it was sent"),
    _seconds("first_token", lambda row: row.first_token, "when its first output token arrived"),
    _seconds("ended", lambda row: row.ended, "when its last token arrived, or its body, or when it failed"),
    _ms("ttft", lambda row: row.ttft, "time to first token, from when the request was due"),
    _ms("tpot", lambda row: row.tpot, "time per output token after the first"),
    _ms("e2e", lambda row: row.e2e, "end-to-end latency, from when the request was due"),
    _ms("proxy", lambda row: row.proxy_seconds, "what the proxy itself took before it asked the decode server"),
    _ms("prefill", lambda row: row.prefill_seconds, "in which the prefill server answered the proxy"),
    _text("outcome", lambda row: row.outcome, "ok, fail (certainly without effect) or info (nobody knows)"),
    _text("ending", lambda row: row.ending, "how it ended, in more detail"),
    _integer("http_status", lambda row: row.status, "the answer's HTTP status"),
    _text("cause", lambda row: row.cause, "why the request did not complete"),
    _integer("prompt_tokens", lambda row: row.prompt_tokens, "tokens of the prompt"),
    _integer("output_tokens", lambda row: row.output_tokens, "tokens of the output, all choices together"),
    _text("prefill_server", lambda row: row.prefill_server, "the prefill server that served it"),
    _text("decode_server", lambda row: row.decode_server, "the decode server that served it"),
    _text("output", lambda row: row.output, "right, tie, doubtful, wrong, unverified, not sampled, or no output"),
    _text("why", lambda row: row.why, "what is wrong with the output, or why it is doubtful or unverified"),
    _integer("wrong_token", lambda row: row.token, "index of the first wrong output token, from 0"),
    _integer("wrong_block", lambda row: row.block, "number of the first wrong KV block of the prompt, from 1"),
    _text("owner", lambda row: row.owner, "id of the request whose KV the output was made from"),
)
"""All of a :class:`RequestRow`, and its three latencies."""


def values_of(rows: Sequence[RequestRow]) -> Mapping[str, list[Value]]:
    """The table by columns."""
    return {column.name: [column.of(row) for row in rows] for column in COLUMNS}


def _clean(text: str | None) -> str | None:
    return clean(text, None) if text else None


def _bounded(number: int | None) -> int | None:
    """None for a number that has no 64 bits: a server's answer may claim any."""
    return number if number is not None and -(2**63) <= number < 2**63 else None
