"""The command line: flags in, frozen options out. Flags that ``vllm bench serve`` has keep their names."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli.addresses import address, refuse_two_credentials
from harness.cli.flags import CONNECTORS, add_attach_flags, add_launch_flags, make_parser
from harness.cli.selftest_flags import selftest_options
from harness.deploy.target import Attachment, Target
from harness.errors import UsageError
from harness.facts import Role
from harness.load.extra_body import checked
from harness.run.fire import Firing
from harness.selftest import SelftestOptions
from harness.verify.asking.policy import VerifyPolicy

_PROMPTS = 128
"""Of the random load, unless the user says otherwise."""


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """A load from a file."""

    path: Path
    most: int | None
    """Lines that are taken from its beginning; None: all."""
    output_len: int | None
    """For lines that do not say."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The load."""

    concurrency: int
    num_prompts: int
    input_len: tuple[int, int]
    output_len: int
    ignore_eos: bool
    seed: int
    request_timeout: float
    settle_timeout: float
    extra_body: dict[str, Any]
    verify: str
    """Which outputs are verified; read by ``VerifyPolicy.parse``."""
    noise_floor: Path | None
    """Where the control arm's noise is kept from run to run."""
    reference_url: str | None
    """A third server that teacher-forces; None: the prefill servers do."""
    dataset: DatasetOptions | None
    """None: random prompts."""
    probe_tiers: bool = False
    """Whether the prefix caches of servers that the harness did not launch may be emptied, to ask what is behind."""


@dataclass(frozen=True, slots=True)
class CatalogueOptions:
    """Which workloads of the catalogue run, and on what."""

    patterns: tuple[str, ...] = ()
    """Names, families, globs; none: the plain load is run instead."""
    recipe: str | None = None
    """The deployment, by name; None: as the other flags describe it."""
    everywhere: bool = False
    """Each workload on the deployment that it is made for, one after another."""
    background: int = 0
    """Requests kept in flight beside each workload."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Where results go and how they are shown."""

    result_dir: Path
    result_filename: str | None
    save_detailed: bool
    label: str | None
    metadata: dict[str, str]
    junit: Path | None
    plain: bool


@dataclass(frozen=True, slots=True)
class ShrinkOptions:
    """How hard a failing run is shrunk."""

    tries: int | None
    """Of one candidate; None: as the whole load's rate of failing demands."""
    most: int
    """In all."""
    seconds: float
    confirm: int
    """Runs of the result."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything of one invocation."""

    command: str
    target: Target
    load: LoadOptions
    report: ReportOptions
    catalogue: CatalogueOptions
    selftest: SelftestOptions | None
    """None: another command."""
    shrink: ShrinkOptions | None
    """None: another command."""
    run_dir: Path | None
    """The stored run that is checked or shrunk."""
    save: bool
    """Whether a check replaces the stored result."""
    state_file: Path | None
    argv: tuple[str, ...]

    @property
    def firing(self) -> Firing:
        """How requests are sent and counters read."""
        load = self.load
        return Firing(
            headers=self.target.headers,
            request_timeout=load.request_timeout,
            settle_timeout=load.settle_timeout,
            extra_body=load.extra_body,
            reference_url=load.reference_url,
        )


def parse(argv: Sequence[str]) -> Options:
    """Options of a command line; argparse exits with 2 on what it cannot read.

    Raises:
        UsageError: flags that contradict each other.

    """
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["run", *words]
    parser = make_parser()
    # Commands have flags of different groups; what a command does not have stands at its default.
    defaults = vars(parser.parse_args(["run"]))
    return _options(argparse.Namespace(**{**defaults, **vars(parser.parse_args(words))}), tuple(argv))


def target_words(argv: Sequence[str], *, attach: bool = True, launch: bool = True) -> tuple[str, ...]:
    """The part of a command line that says what is attached to, or launched."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for wanted, add_flags in ((attach, add_attach_flags), (launch, add_launch_flags)):
        if wanted:
            add_flags(parser)
    _, others = parser.parse_known_args(list(argv))
    kept = []
    for word in argv:
        if others and word == others[0]:
            others.pop(0)
        else:
            kept.append(word)
    return tuple(kept)


def _options(flags: argparse.Namespace, argv: tuple[str, ...]) -> Options:
    return Options(
        command=flags.command,
        target=_target(flags),
        load=_load(flags),
        report=_report(flags),
        catalogue=_catalogue(flags),
        selftest=selftest_options(flags) if flags.command == "selftest" else None,
        shrink=_shrink(flags) if flags.command == "shrink" else None,
        run_dir=getattr(flags, "run_dir", None),
        save=getattr(flags, "save", False),
        state_file=getattr(flags, "state_file", None),
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
    )


def _names_servers(flags: argparse.Namespace) -> bool:
    return bool(flags.base_url is not None or flags.prefill_url or flags.decode_url)


def _engine(flags: argparse.Namespace) -> str:
    if flags.engine == "sim" and _names_servers(flags):
        raise UsageError("--engine sim starts a simulated deployment, and a URL names a running one: give one of them.")
    return str(flags.engine)


def _attachment(flags: argparse.Namespace) -> Attachment | None:
    if not _names_servers(flags):
        return None
    if not (flags.prefill_url and flags.decode_url):
        raise UsageError(
            "To judge a running deployment the harness reads the counters of its servers: give --prefill-url and "
            "--decode-url (each repeatable) beside --base-url, the proxy. Without --base-url it starts a proxy "
            "of its own in front of them."
        )
    return Attachment(
        tuple(address(url, "--prefill-url") for url in flags.prefill_url),
        tuple(address(url, "--decode-url") for url in flags.decode_url),
        _optional_address(flags.base_url, "--base-url"),
    )


def _optional_address(text: str | None, flag: str) -> str | None:
    """An empty text, as of a shell's variable that is not set, is an address that is wrong, and not one left out."""
    return None if text is None else address(text, flag)


def _load(flags: argparse.Namespace) -> LoadOptions:
    return LoadOptions(
        concurrency=flags.concurrency,
        num_prompts=flags.num_prompts or _PROMPTS,
        input_len=flags.random_input_len,
        output_len=flags.random_output_len,
        ignore_eos=flags.ignore_eos,
        seed=flags.seed,
        request_timeout=flags.request_timeout_sec,
        settle_timeout=flags.settle_timeout_sec,
        extra_body=checked(flags.extra_body),
        verify=_verify(flags.verify),
        noise_floor=flags.noise_floor,
        reference_url=_optional_address(flags.reference_url, "--reference-url"),
        dataset=_dataset(flags),
        probe_tiers=flags.probe_tiers,
    )


def _dataset(flags: argparse.Namespace) -> DatasetOptions | None:
    if (flags.dataset_name == "custom") != (flags.dataset_path is not None) and flags.dataset_name is not None:
        raise UsageError(
            "--dataset-name custom is a load from a file, and --dataset-name random is none: give --dataset-path "
            "FILE.jsonl with the one and not with the other."
        )
    if flags.dataset_path is None:
        return None
    if flags.workload:
        raise UsageError("--dataset-path is a load, and --workload names others: give one of them.")
    return DatasetOptions(flags.dataset_path, flags.num_prompts, flags.custom_output_len)


def _shrink(flags: argparse.Namespace) -> ShrinkOptions:
    return ShrinkOptions(flags.tries, flags.max_tries, flags.time_budget_sec, flags.confirm)


def _catalogue(flags: argparse.Namespace) -> CatalogueOptions:
    launches = flags.deployment or flags.all_deployments
    if launches and _names_servers(flags):
        raise UsageError(
            "--deployment and --all-deployments launch deployments of their own, and --base-url, --prefill-url and "
            "--decode-url name one that is running: give one or the other."
        )
    if (launches or flags.background_load) and not flags.workload:
        raise UsageError(
            "--deployment, --all-deployments and --background-load belong to the catalogue: say which workloads with "
            "--workload NAME (--workload '*' is all of them)."
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
                f"--{role}-port is given {len(given)} times, and {servers} {role} server{'s' * (servers > 1)} would be "
                f"launched: give one port for each, and --{role} {len(given)} for that many servers."
            )
    ports = {"proxy": flags.port} if flags.port else {}
    ports |= {f"prefill-{index}": port for index, port in enumerate(flags.prefill_port)}
    ports |= {f"decode-{index}": port for index, port in enumerate(flags.decode_port)}
    return ports


def _verify(text: str) -> str:
    VerifyPolicy.parse(text)
    return text


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            shown = flag if flag == "--header" else f"{flag} {text}"  # a header's value may be a credential
            raise UsageError(f"{shown}: give it as KEY=VALUE.")
        pairs[key] = value
    return pairs
