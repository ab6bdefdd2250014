"""How a run ends: its reports stored and shown, and the exit code. The same for a run, a check and an interruption."""

from pathlib import Path

from harness.cli.options import Options, ReportOptions
from harness.errors import ExitCode, HarnessError
from harness.history import History
from harness.reports import LoadSettings, Report, print_catalogue, print_report
from harness.reports.measured import under_test
from harness.store import save_result, save_text
from harness.verdict import Verdict

EXIT = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


def store_report(report: Report, options: ReportOptions, directory: Path, *, table: bool = True) -> None:
    """Write result.json to the run's directory, and whatever else was asked for.

    Raises:
        HarnessError: something could not be written. The report was shown then: it is not to be lost with the file.

    """
    try:
        save_result(directory, report.result)
        if options.result_filename:
            save_result(directory, report.result, str((options.result_dir / options.result_filename).resolve()))
        store_junit(report, options)
    except HarnessError as error:
        show(report, plain=options.plain, table=table)
        raise HarnessError(f"{error} The report above is all that there is of this run's verdict.") from error


def store_junit(report: Report, options: ReportOptions) -> None:
    """Write JUnit XML, if it was asked for."""
    if options.junit:
        save_text(options.junit.resolve(), report.junit)


def show(report: Report, *, plain: bool, table: bool = True) -> ExitCode:
    """Print the report, and a catalogue's ``table`` under it; says what the run exits with."""
    print_report(report, plain=plain)
    if report.rows and table:
        print_catalogue(report.rows, plain=plain)
    return exit_code(report.verdict, died=report.died)


def exit_code(verdict: Verdict, *, died: bool) -> ExitCode:
    """Of a verdict; where a process of the harness's own died and nothing is known for that, the harness's failure."""
    return ExitCode.HARNESS if died and verdict is Verdict.UNKNOWN else EXIT[verdict]


def settings_of(options: Options, history: History) -> LoadSettings:
    """The load as it was asked for."""
    from_file = options.load.dataset is not None
    return LoadSettings(
        num_prompts=len(under_test(history)) if from_file else options.load.num_prompts,
        max_concurrency=options.load.concurrency,
        label=options.report.label,
        metadata=options.report.metadata,
        detailed=options.report.save_detailed,
    )
