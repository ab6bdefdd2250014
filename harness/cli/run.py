"""``python -m harness [run]``: sends a load to a deployment, judges, and reports."""

import asyncio
import sys

from harness.beside import Beside
from harness.cli.ending import end_interrupted, show, store_report
from harness.cli.measure import measuring
from harness.cli.options import Options
from harness.cli.page import write_page
from harness.cli.rejudged import settings_of
from harness.cli.report_files import publish
from harness.cli.stored import stored_run
from harness.errors import ExitCode, UsageError
from harness.faults import under_faults
from harness.reports import make_report
from harness.run import Carried, fresh_salt, with_tokens
from harness.store.noise_file import add_noise, noise_key, read_noise
from harness.verdict import Verdict
from harness.verify.judging import control_outputs


async def run(options: Options) -> ExitCode:
    """Make one run, and store and show its report."""
    load, noise_floor = options.load, options.verification.noise_floor
    # Read a dataset before anything is started, so that a bad line is reported at once.
    demands = load.demands()
    with (
        stored_run(options, label=options.report.label or "", seed=load.seed) as store,
        Beside(store.journal, store.logs / "beside.log", senders=_senders(options)) as beside,
    ):
        try:
            async with measuring(options, store, (load.name,), demands, beside) as on:
                if noise_floor is not None:
                    key = noise_key(on.deployment, _together(options))
                    if noise := read_noise(noise_floor, key, on.clock.now()):
                        on.record(noise)
                load = await with_tokens(load, on.deployment, options.sending.headers)
                salt = fresh_salt()
                verify = options.verify(on.deployment, salt)
                scenario = load.scenario(on.deployment, salt)
                if options.faults:
                    scenario = under_faults(scenario, on.deployment, options.faults)
                carried = await on.carry_out([scenario], verify=verify)
        except asyncio.CancelledError:
            interrupted = end_interrupted(store, options)
            return interrupted.exit_code if interrupted else ExitCode.UNKNOWN
        settings = settings_of(options, carried.history)
        report = make_report(carried.deployment, carried.history, carried.judgement, store.path, settings)
        store_report(report, options.report, store.path)
        _keep_noise(options, carried)
        show(report, plain=options.report.plain)
        publish(report, options.report)
        write_page(report, options.report, store.path)
        return report.exit_code


def _senders(options: Options) -> int:
    """How many processes of this machine have a part in sending the load."""
    workers = options.workers
    return 1 + (workers.number or 0) if workers.needed and workers.ray is None else 1


def _together(options: Options) -> int | str:
    """What decides how many requests are served together: the concurrency, or the rate."""
    return options.load.concurrency or str(options.load.arrival or "the trace's own times")


def _keep_noise(options: Options, carried: Carried) -> None:
    """Keep the noise of the control requests in ``--noise-floor``, if the run is complete and its outputs are right."""
    file = options.verification.noise_floor
    right = any(check.name == "outputs" and check.verdict is Verdict.VALID for check in carried.judgement.checks)
    if file is None or not right or carried.history.ended_early:
        return
    if outputs := control_outputs(carried.history):
        try:
            add_noise(file, noise_key(carried.deployment, _together(options)), outputs)
        except (OSError, UsageError) as error:
            # The verdict does not depend on this file.
            print(f"The measured noise was not kept: {error}", file=sys.stderr)
