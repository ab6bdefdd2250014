"""Turns a command line into frozen options."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli.flags import add_attach_flags, add_launch_flags, make_parser
from harness.cli.load_options import SweepOptions, load_of, sweep_of
from harness.deploy.addresses import address, refuse_two_credentials
from harness.deploy.target import CONNECTORS, Attachment, Target
from harness.errors import UsageError
from harness.facts import Deployment, Role
from harness.faults import FaultPlan, Reach, parse_fault, random_faults, relays_for
from harness.faults.link import SIDE_CHANNEL
from harness.fleet import Workers
from harness.load.extra_body import checked
from harness.loads import Load
from harness.run import Sending
from harness.selftest import SelftestOptions
from harness.shrink.shrinking import Effort
from harness.sim import KINDS, USUAL
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
    plain: bool


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
    run_dir: Path | None
    """The stored run that is checked or shrunk."""
    save: bool
    """Whether ``check`` replaces the stored result."""
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


def target_words(argv: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line that describe the deployment to attach to or to launch."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_attach_flags(parser)
    add_launch_flags(parser)
    _, others = parser.parse_known_args(list(argv))
    kept = []
    for word in argv:
        if others and word == others[0]:
            others.pop(0)
        else:
            kept.append(word)
    return tuple(kept)


def _options(flags: argparse.Namespace, argv: tuple[str, ...]) -> Options:
    target = _target(flags)
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
            reference_url=_optional_address(flags.reference_url, "--reference-url"),
        ),
        verification=VerificationOptions(VerifyPolicy.parse(flags.verify), flags.noise_floor, flags.probe_tiers),
        report=_report(flags),
        catalogue=_catalogue(flags),
        selftest=_selftest(flags) if flags.command == "selftest" else None,
        shrink=_shrink(flags) if flags.command == "shrink" else None,
        run_dir=getattr(flags, "run_dir", None),
        save=getattr(flags, "save", False),
        state_file=getattr(flags, "state_file", None),
        faults=_faults(flags),
        workers=Workers(flags.workers, flags.ray),
        argv=argv,
    )


def _target(flags: argparse.Namespace) -> Target:
    attachment, headers = _attachment(flags), _pairs(flags.header, "--header")
    if attachment is not None:
        named = (*attachment.prefill_urls, *attachment.decode_urls, attachment.base_url or "")
        refuse_two_credentials(named, headers)
    return Target(
        attachment=attachment,
        model=flags.model,
        served_model_name=flags.served_model_name,
        kv_cache_dtype=flags.kv_cache_dtype,
        headers=headers,
        connectors=CONNECTORS[flags.connector or "multi"],
        prefill=flags.prefill,
        decode=flags.decode,
        block_size=flags.block_size,
        num_gpu_blocks=flags.num_gpu_blocks,
        offload_bytes=flags.offload_bytes,
        nixl_config=flags.nixl_config,
        kv_load_failure_policy=flags.kv_load_failure_policy,
        engine_args=tuple(flags.engine_arg),
        role_args={Role.PREFILL: tuple(flags.prefill_arg), Role.DECODE: tuple(flags.decode_arg)},
        engine_pythons={
            Role.PREFILL: flags.prefill_python or flags.engine_python,
            Role.DECODE: flags.decode_python or flags.engine_python,
        },
        device=flags.device,
        ports=_ports(flags),
        ready_timeout=flags.ready_check_timeout_sec,
        num_warmups=flags.num_warmups,
        engine=_engine(flags),
        sim_noise=_sim_noise(flags),
        separate_processes=bool(flags.fault or flags.faults),
    )


def _faults(flags: argparse.Namespace) -> tuple[FaultPlan, ...]:
    """The faults of the load. Raises UsageError where they would not be carried out."""
    if not (flags.fault or flags.faults):
        return ()
    for flag, given in (("--workload", bool(flags.workload)), ("--sweep", flags.sweep is not None)):
        if given:
            raise UsageError(f"--fault and --faults act on a plain load: leave them out, or {flag}.")
    plans = tuple(map(parse_fault, (*flags.fault, *_random_faults(flags))))
    attached = _names_servers(flags)
    Reach(_servers(flags), launched=not attached, own_proxy=flags.base_url is None).require(plans)
    return plans


def _random_faults(flags: argparse.Namespace) -> list[str]:
    if flags.faults is None:
        return []
    if flags.duration_sec is None:
        raise UsageError("--faults draws the moments of faults in a load of known length: add --duration-sec S.")
    launched = not _names_servers(flags)
    return random_faults(flags.faults, flags.duration_sec, flags.seed, _servers(flags), launched=launched)


def _servers(flags: argparse.Namespace) -> list[str]:
    """The names of the servers to attach to or to launch."""
    attached = _names_servers(flags)
    numbers = {role: len(getattr(flags, f"{role}_url")) if attached else getattr(flags, role) for role in Role}
    return [f"{role}-{index}" for role, number in numbers.items() for index in range(number)]


def _names_servers(flags: argparse.Namespace) -> bool:
    return bool(flags.base_url is not None or flags.prefill_url or flags.decode_url)


def _engine(flags: argparse.Namespace) -> str:
    if flags.engine == "sim" and _names_servers(flags):
        raise UsageError("--engine sim starts a simulated deployment, but a URL names a running one: give one of them.")
    return str(flags.engine)


def _sim_noise(flags: argparse.Namespace) -> str:
    """The simulator's noise; ``selftest``, which launches nothing, has none here."""
    kind = flags.sim_noise or USUAL
    if kind != USUAL and flags.engine != "sim" and flags.command != "selftest":
        raise UsageError("--sim-noise is for simulated servers: add --engine sim, or leave --sim-noise out.")
    return str(kind)


def _attachment(flags: argparse.Namespace) -> Attachment | None:
    if not _names_servers(flags):
        return None
    if not (flags.prefill_url and flags.decode_url):
        raise UsageError(
            "To attach to a running deployment, give --prefill-url and --decode-url (both repeatable): the harness "
            "reads the counters of the servers behind the proxy. --base-url is the proxy's URL; without it the harness "
            "starts its own proxy."
        )
    return Attachment(
        tuple(address(url, "--prefill-url") for url in flags.prefill_url),
        tuple(address(url, "--decode-url") for url in flags.decode_url),
        _optional_address(flags.base_url, "--base-url"),
    )


def _optional_address(text: str | None, flag: str) -> str | None:
    """The address; None if the flag was left out. An empty value (an unset shell variable) is a wrong address."""
    return None if text is None else address(text, flag)


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


def _catalogue(flags: argparse.Namespace) -> CatalogueOptions:
    launches = flags.deployment or flags.all_deployments
    if launches and _names_servers(flags):
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
        metadata=_pairs(flags.metadata, "--metadata"),
        junit=flags.junit,
        plain=flags.plain,
    )


def _ports(flags: argparse.Namespace) -> dict[str, int]:
    for role in Role:
        given, servers = getattr(flags, f"{role}_port"), getattr(flags, role)
        if len(given) > servers:
            raise UsageError(
                f"--{role}-port is given {len(given)} times, but {servers} {role} server{'s' * (servers > 1)} would be "
                f"launched: give one port for each server, or launch {len(given)} servers with --{role} {len(given)}."
            )
    ports = {"proxy": flags.port} if flags.port else {}
    ports |= {f"prefill-{index}": port for index, port in enumerate(flags.prefill_port)}
    ports |= {f"decode-{index}": port for index, port in enumerate(flags.decode_port)}
    return ports


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            # A header's value may be a credential.
            shown = flag if flag == "--header" else f"{flag} {text}"
            raise UsageError(f"{shown}: give the value as KEY=VALUE.")
        pairs[key] = value
    return pairs
