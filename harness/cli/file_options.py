"""The files and places that a finished run is written to, besides its directory."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.cli.target_options import address_with_variables
from harness.errors import UsageError
from harness.reports.files.parquet_file import require_pyarrow


@dataclass(frozen=True, slots=True)
class FileOptions:
    """None: not written."""

    csv: Path | None = None
    parquet: Path | None = None
    prometheus: Path | None = None
    pushgateway: str | None = None
    """URL, which may have credentials."""
    announced: bool = True
    """Whether a CI system that is detected is told of the run."""

    @property
    def named(self) -> Iterator[tuple[str, Path]]:
        """The flags with their files."""
        found = {"--csv": self.csv, "--parquet": self.parquet, "--prometheus": self.prometheus}
        return ((flag, path) for flag, path in found.items() if path is not None)

    def require(self) -> None:
        """Raise UsageError if a format cannot be written; called before anything is started."""
        if self.parquet is not None:
            require_pyarrow()


def files_of(flags: argparse.Namespace) -> FileOptions:
    """The files. Raises UsageError if one cannot be what its flag says."""
    files = FileOptions(
        csv=flags.csv,
        parquet=flags.parquet,
        prometheus=flags.prometheus,
        pushgateway=None if flags.pushgateway is None else address_with_variables(flags.pushgateway, "--pushgateway"),
        announced=flags.announced,
    )
    if files.prometheus is not None and files.prometheus.suffix != ".prom":
        raise UsageError(
            f"--prometheus {files.prometheus}: the node exporter reads files whose names end in .prom: name it so."
        )
    if getattr(flags, "sweep", None) is not None or flags.all_deployments:
        _refuse_several_runs(flags)
    _refuse_one_file_twice(flags, files)
    return files


def _refuse_several_runs(flags: argparse.Namespace) -> None:
    several = ("csv", "parquet", "prometheus", "pushgateway")
    if given := [f"--{name}" for name in several if getattr(flags, name) is not None]:
        raise UsageError(
            f"--sweep and --all-deployments make several runs, and {' and '.join(given)} of one would replace that of "
            "another: leave it out, and write it from each run's directory with `check RUN_DIR`."
        )


def _refuse_one_file_twice(flags: argparse.Namespace, files: FileOptions) -> None:
    written = [path.resolve() for path in (flags.junit, *dict(files.named).values()) if path is not None]
    if len(set(written)) < len(written):
        raise UsageError("--junit, --csv, --parquet and --prometheus name one file twice: name a file for each.")
