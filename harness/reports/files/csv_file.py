"""The load's requests as CSV in UTF-8: a header, then a line for each request. What is not known is empty.

Spreadsheets take a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and some of the texts come from
servers. Such a text gets an apostrophe in front, which spreadsheets read as "this is text". Numbers are as they are.
"""

import csv
import io
from collections.abc import Sequence

from harness.reports.files.columns import COLUMNS, Kind, Value
from harness.reports.requests import RequestRow

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""The four characters, and their full-width forms, which some spreadsheets take for them."""


def requests_csv(rows: Sequence[RequestRow]) -> str:
    """The whole file."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.name for column in COLUMNS)
    writer.writerows([_cell(column.kind, column.of(row)) for column in COLUMNS] for row in rows)
    return file.getvalue()


def _cell(kind: Kind, value: Value) -> Value:
    return f"'{value}" if kind is Kind.TEXT and isinstance(value, str) and value.startswith(_FORMULA) else value
