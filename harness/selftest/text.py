"""The report of a selftest as plain text in fixed columns, for terminals, logs and mails."""

from collections.abc import Iterator, Sequence

from harness.selftest.report import AtRate, BugRow, NoiseRow, SelftestReport, why_missed


def table_lines(report: SelftestReport) -> Iterator[str]:
    """The table, a line for each missed bug, false alarm and run with false names, and a line that sums up."""
    if report.rows:
        yield from _columns([_head(report.rows[0]), *map(_cells, report.rows)])
        yield ""
    if report.noises:
        yield from _columns([_NOISE_HEAD, *map(_noise_cells, report.noises)])
        yield ""
    for row in report.rows:
        if not row.is_caught:
            yield f"MISSED  {row.bug}: {why_missed(row)}"
    for alarm in report.alarms:
        yield f"FALSE ALARM  {alarm}"
    for false in report.falsely_named:
        yield f"FALSELY NAMED  {false}"
    yield _sum(report)


def _head(row: BugRow) -> tuple[str, ...]:
    rates = (f"1 in {rate.one_in}" for rate in row.rates)
    return "bug", "caught by", *rates, "named", "needed", "false alarms"


def _cells(row: BugRow) -> tuple[str, ...]:
    return (
        row.bug,
        ", ".join(row.caught_by) or "nothing",
        *map(_rate, row.rates),
        f"{row.named:,}/{row.wrong:,}" if row.wrong else "-",
        "-" if row.needed is None else f"{row.needed:,}",
        f"{row.alarms}/{row.clean_runs}",
    )


_NOISE_HEAD = ("noise", "clean requests", "flipped", "false alarms")


def _noise_cells(row: NoiseRow) -> tuple[str, ...]:
    alarms = f"{row.alarms}/{row.runs} [{row.low:.0%}, {row.high:.0%}]"
    return row.noise, f"{row.requests:,}", f"{row.flipped:.1%}", alarms


def _rate(rate: AtRate) -> str:
    return f"{rate.caught}/{rate.runs} [{rate.low:.0%}, {rate.high:.0%}]" if rate.runs else "never struck"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


def _sum(report: SelftestReport) -> str:
    caught = sum(row.is_caught for row in report.rows)
    return (
        f"{'PASSED' if report.passed else 'FAILED'}  {caught} of {len(report.rows)} planted bugs caught; "
        f"{len(report.alarms)} false alarms in {report.clean_runs} clean runs of {report.clean_requests:,} requests, "
        f"{report.flipped:.1%} of which have a token other than the best; {report.accused} unaffected requests named"
    )


LEGEND = """\
caught by     checkers with the same verdict as the run, the most frequent first
1 in N        runs caught / runs in which the bug struck, with one bad request in N; 95 % interval (Clopper-Pearson)
named         requests named in the reports / requests that read wrong KV
needed        requests, at the rarest rate, after which 95 % of runs are caught; estimated from all runs
false alarms  clean runs that were not valid / all clean runs, under the same load above and under the same noise below;
              there with the 95 % interval of the share of runs that are not valid
noise         how answers of correct servers differ, by the simulator's kinds; planted bugs have each kind in turn too,
              those that only move log-probabilities just usual and none
flipped       clean requests whose answers have a token other than the best"""
