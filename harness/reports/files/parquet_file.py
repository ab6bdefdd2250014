"""The load's requests as Parquet: the columns of :mod:`harness.reports.files.columns` with their types.

The file's metadata has the run's facts under ``pd_harness.NAME`` (verdict, seed, versions, ...), and each column's
metadata has ``description``. Needs pyarrow, which only this module imports.
"""

import io
from collections.abc import Sequence
from importlib.util import find_spec

from harness.errors import UsageError
from harness.reports.files.columns import COLUMNS, Kind, values_of
from harness.reports.identity import RunIdentity
from harness.reports.requests import RequestRow


def require_pyarrow() -> None:
    """Raise UsageError if Parquet cannot be written."""
    if find_spec("pyarrow") is None:
        raise UsageError(
            "--parquet needs pyarrow, which is not installed: pip install pd-harness[parquet]. Or write --csv, which "
            "needs nothing more."
        )


def requests_parquet(rows: Sequence[RequestRow], identity: RunIdentity) -> bytes:
    """The whole file."""
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    types = {Kind.TEXT: pa.string(), Kind.INTEGER: pa.int64(), Kind.NUMBER: pa.float64()}
    fields = [pa.field(column.name, types[column.kind], metadata={"description": column.text}) for column in COLUMNS]
    facts = {f"pd_harness.{name}": text for name, text in identity.texts.items()}
    file = io.BytesIO()
    parquet.write_table(pa.table(values_of(rows), schema=pa.schema(fields, facts)), file, compression="zstd")
    return file.getvalue()
