"""Turns a command line into frozen options."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli.fault_options import faults_of
from harness.cli.file_options import FileOptions, files_of
from harness.cli.flags import make_parser
from harness.cli.load_options import SweepOptions, load_of, sweep_of
from harness.cli.target_options import names_servers, optional_address, pairs_of, target_of
from harness.deploy.target import Target
from harness.errors import UsageError
from harness.facts import Deployment
from harness.faults import FaultPlan, relays_for
from harness.faults.link import SIDE_CHANNEL
from harness.fleet import Workers
from harness.load.extra_body import checked
from harness.loads import Load
from harness.run import Sending
from harness.selftest import SelftestOptions
from harness.shrink.shrinking import Effort
from harness.sim import KINDS
from harness.verify.asking import VerifyOptions, VerifyPolicy


@dataclass(frozen=True, slots=True)
class VerificationOptions:
    """How answers are verified."""

    policy: VerifyPolicy
    """How many outputs are verified."""
    noise_floor: Path | None
    """The file that keeps the noise of the control requests from run to run; None: each run measures the noise."""
    probe_tiers: bool
    """Whether prefix caches of attached servers may be emptied, to verify the offload tiers."""


@dataclass(frozen=True, slots=True)
class CatalogueOptions:
    """The chosen workloads of the catalogue, and the deployments they run on."""

    patterns: tuple[str, ...] = ()
    """Names, families or globs of workloads. Empty: the plain load is run."""
    preset: str | None = None
    """The name of the deployment's preset; None: the flags describe the deployment."""
    everywhere: bool = False
    """Whether each workload runs on the deployment that it is made for."""
    background: int = 0
    """Requests kept in flight beside each workload."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Where results are stored and how they are shown."""

    result_dir: Path
    result_filename: str | None
    save_detailed: bool
    label: str | None
    metadata: dict[str, str]
    junit: Path | None
    files: FileOptions
    plain: bool
    html: bool = True
    """Whether ``report.html`` is written."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """Which stored runs are compared, and what makes the comparison fail."""

    runs: tuple[str, ...]
    """BASELINE and RUN; empty if the flags name the runs."""
    baseline: tuple[str, ...]
    run: tuple[str, ...]
    fail_on: tuple[str, ...]
    allow_different: tuple[str, ...]
    output: Path | None


@dataclass(frozen=True, slots=True)
class Options:
    """All options of one command line."""

    command: str
    target: Target
    load: Load
    goodput: Mapping[str, float]
    """The objectives that a good request keeps: milliseconds by metric; empty: goodput is not counted."""
    sweep: SweepOptions | None
    sending: Sending
    verification: VerificationOptions
    report: ReportOptions
    catalogue: CatalogueOptions
    selftest: SelftestOptions | None
    """None for other commands."""
    shrink: Effort | None
    """None for other commands."""
    compare: CompareOptions | None
    """None for other commands."""
    run_dir: Path | None
    """The stored run that is checked, shown or shrunk."""
    save: bool
    """Whether ``check`` replaces the stored result."""
    output: Path | None
    """The file that ``report`` writes; None: report.html in the run's directory."""
    state_file: Path | None
    faults: tuple[FaultPlan, ...]
    """What is done to the deployment during the load."""
    workers: Workers
    """From where the load is sent."""
    argv: tuple[str, ...]

    def verify(self, deployment: Deployment, salt: str, *, everything: bool = False) -> VerifyOptions:
        """How the answers of a run are verified; ``everything``: all answers, regardless of ``--verify``.

        To probe the offload tiers, prefix caches of launched servers are emptied; prefix caches of attached servers
        only with ``--probe-tiers``.
        """
        return VerifyOptions(
            policy=VerifyPolicy.parse("all") if everything else self.verification.policy,
            salt=salt,
            seed=self.load.seed,
            concurrency=None if everything else self.load.concurrency,
            reference=self.sending.reference_url is not None,
            probe_tiers=deployment.launched or self.verification.probe_tiers,
            # The servers' first handshake must find the fault at work.
            salt_on_the_way=SIDE_CHANNEL not in relays_for(self.faults),
        )


def parse(argv: Sequence[str]) -> Options:
    """Options of a command line.

    Raises:
        UsageError: flags contradict each other.
        SystemExit: by argparse, with code 2: the command line cannot be read.

    """
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["run", *words]
    parser = make_parser()
    # Flags that a command does not have get the defaults of ``run``.
    defaults = vars(parser.parse_args(["run"]))
    return _options(argparse.Namespace(**{**defaults, **vars(parser.parse_args(words))}), tuple(argv))


def _options(flags: argparse.Namespace, argv: tuple[str, ...]) -> Options:
    target = target_of(flags)
    return Options(
        command=flags.command,
        target=target,
        load=load_of(flags),
        goodput=dict(flags.goodput),
        sweep=sweep_of(flags),
        sending=Sending(
            headers=target.headers,
            request_timeout=flags.request_timeout_sec,
            settle_timeout=flags.settle_timeout_sec,
            extra_body=checked(flags.extra_body),
            metrics_interval=flags.metrics_interval_sec,
            reference_url=optional_address(flags.reference_url, "--reference-url"),
        ),
        verification=VerificationOptions(VerifyPolicy.parse(flags.verify), flags.noise_floor, flags.probe_tiers),
        report=_report(flags),
        catalogue=_catalogue(flags),
        selftest=_selftest(flags) if flags.command == "selftest" else None,
        shrink=_shrink(flags) if flags.command == "shrink" else None,
        compare=_compare(flags) if flags.command == "compare" else None,
        run_dir=getattr(flags, "run_dir", None),
        save=getattr(flags, "save", False),
        output=getattr(flags, "output", None),
        state_file=getattr(flags, "state_file", None),
        faults=faults_of(flags),
        workers=Workers(flags.workers, flags.ray),
        argv=argv,
    )


def _selftest(flags: argparse.Namespace) -> SelftestOptions:
    return SelftestOptions(
        bugs=tuple(flags.bug),
        one_in=flags.rates,
        requests=flags.requests,
        repeats=flags.repeats,
        clean_requests=flags.clean_requests,
        noises=(flags.sim_noise,) if flags.sim_noise else KINDS,
        flip_rate=flags.flip_rate,
        seed=flags.seed,
        jobs=flags.jobs,
    )


def _shrink(flags: argparse.Namespace) -> Effort:
    return Effort(flags.tries, flags.max_tries, flags.time_budget_sec, flags.confirm)


def _compare(flags: argparse.Namespace) -> CompareOptions:
    return CompareOptions(
        runs=tuple(flags.runs),
        baseline=tuple(flags.baseline),
        run=tuple(flags.run),
        fail_on=tuple(flags.fail_on),
        allow_different=tuple(flags.allow_different),
        output=flags.output,
    )


def _catalogue(flags: argparse.Namespace) -> CatalogueOptions:
    launches = flags.deployment or flags.all_deployments
    if launches and names_servers(flags):
        raise UsageError(
            "--deployment and --all-deployments launch deployments, but --base-url, --prefill-url and --decode-url "
            "name a running deployment: leave out the former or the latter."
        )
    if (launches or flags.background_load) and not flags.workload:
        raise UsageError(
            "--deployment, --all-deployments and --background-load are for workloads of the catalogue: name the "
            "workloads with --workload NAME (--workload '*' runs all workloads)."
        )
    return CatalogueOptions(tuple(flags.workload), flags.deployment, flags.all_deployments, flags.background_load)


def _report(flags: argparse.Namespace) -> ReportOptions:
    return ReportOptions(
        result_dir=flags.result_dir,
        result_filename=flags.result_filename,
        save_detailed=flags.save_detailed,
        label=flags.label,
        metadata=pairs_of(flags.metadata, "--metadata"),
        junit=flags.junit,
        files=files_of(flags),
        plain=flags.plain,
        html=not flags.no_html,
    )
