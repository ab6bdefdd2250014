"""The flags of files and places that a finished run is written to, besides its directory."""

from pathlib import Path

from harness.cli.flag import Flags
from harness.cli.flag import value as _value


def add_file_flags(flags: Flags) -> None:
    """The flags, for a run and for ``check``."""
    _value(flags, "--csv", "FILE", "also write the load's requests, a line each, as CSV", Path)
    _value(flags, "--parquet", "FILE", "also write the load's requests as Parquet (needs pyarrow)", Path)
    text = "also write the run's results as Prometheus text, for the node exporter's textfile collector"
    _value(flags, "--prometheus", "FILE.prom", text, Path)
    text = "also push the run's results to a Prometheus Pushgateway; ${NAME} stands for an environment variable"
    _value(flags, "--pushgateway", "URL", text)
    text = "do not annotate the build on GitHub Actions or Buildkite (default: annotate if one is detected)"
    flags.add_argument("--no-ci-annotations", action="store_false", dest="announced", help=text)
