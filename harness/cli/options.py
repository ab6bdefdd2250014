"""The command line: flags in, frozen options out. Flags that ``vllm bench serve`` has keep their names."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli.selftest_flags import add_selftest_flags, selftest_options
from harness.deploy.plan import OFFLOAD_BYTES
from harness.deploy.target import Attachment, Target
from harness.errors import UsageError
from harness.facts import Connector, Role
from harness.selftest import SelftestOptions
from workloads.recipes import RECIPES
from workloads.verify_policy import DEFAULT as DEFAULT_POLICY
from workloads.verify_policy import VerifyPolicy

_CONNECTORS = {
    "nixl": (Connector.NIXL,),
    "offloading": (Connector.OFFLOADING,),
    "multi": (Connector.NIXL, Connector.OFFLOADING),
    "nixl,offloading": (Connector.NIXL, Connector.OFFLOADING),
    "offloading,nixl": (Connector.OFFLOADING, Connector.NIXL),
}


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
class Options:
    """Everything of one invocation."""

    command: str
    target: Target
    load: LoadOptions
    report: ReportOptions
    catalogue: CatalogueOptions
    selftest: SelftestOptions | None
    """None: another command."""
    state_file: Path | None
    argv: tuple[str, ...]


def parse(argv: Sequence[str]) -> Options:
    """Options of a command line; argparse exits with 2 on what it cannot read.

    Raises:
        UsageError: flags that contradict each other.

    """
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["run", *words]
    parser = _parser()
    # Commands have flags of different groups; what a command does not have stands at its default.
    defaults = vars(parser.parse_args(["run"]))
    return _options(argparse.Namespace(**{**defaults, **vars(parser.parse_args(words))}), tuple(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description="Proves a prefill/decode deployment of an LLM server right under load.",
        epilog="Exit codes: 0 valid, 1 invalid, 2 usage, 3 unknown, 4 the harness itself failed.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="fire a load and judge it (the default command)", allow_abbrev=False)
    serve = commands.add_parser("serve", help="hold a deployment up and print its facts as JSON", allow_abbrev=False)
    for command in (run, serve):
        _add_attach_flags(command)
        _add_launch_flags(command)
    add_selftest_flags(commands)
    commands.add_parser("list", help="show the catalogue of workloads", allow_abbrev=False)
    _add_load_flags(run)
    _add_catalogue_flags(run)
    _add_report_flags(run)
    serve.add_argument("--state-file", type=Path, help="write the facts there as well, once all is ready")
    serve.add_argument("--result-dir", type=Path, default=Path("runs"), help="where logs go (default: %(default)s)")
    return parser


def _add_attach_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("attach to a running deployment")
    group.add_argument("--base-url", metavar="URL", help="the proxy; without it the harness starts its own")
    group.add_argument("--prefill-url", metavar="URL", action="append", default=[], help="repeatable")
    group.add_argument("--decode-url", metavar="URL", action="append", default=[], help="repeatable")
    group.add_argument("--header", metavar="KEY=VALUE", action="append", default=[], help="sent with every request")
    group.add_argument(
        "--kv-cache-dtype", metavar="DTYPE", help="if the servers were started with one and do not say (no dev mode)"
    )
    group.add_argument("--served-model-name", metavar="NAME", help="default: what the decode server names first")


def _add_launch_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("launch a deployment")
    group.add_argument("--engine", choices=["vllm", "sim"], default="vllm", help="sim: the simulated pair, in a second")
    group.add_argument("--model", metavar="PATH|NAME", help="default: a small canary model made from a seed")
    group.add_argument("--connector", choices=list(_CONNECTORS), help="default: multi (NIXL first, then offloading)")
    group.add_argument("--prefill", metavar="N", type=_positive, default=1, help="prefill servers (default: 1)")
    group.add_argument("--decode", metavar="N", type=_positive, default=1, help="decode servers (default: 1)")
    group.add_argument("--block-size", metavar="TOKENS", type=_positive)
    group.add_argument("--num-gpu-blocks", metavar="N", type=_positive, help="blocks in each server's KV pool")
    group.add_argument("--offload-bytes", metavar="N", type=_positive, default=OFFLOAD_BYTES, help="each server's tier")
    group.add_argument(
        "--nixl-config",
        metavar="JSON",
        type=_json_object,
        default={},
        help="the NIXL connector's kv_connector_extra_config, as in '{\"kv_lease_duration\": 5}'",
    )
    group.add_argument("--engine-arg", metavar="ARG", action="append", default=[], help="passed to every server")
    group.add_argument("--prefill-arg", metavar="ARG", action="append", default=[])
    group.add_argument("--decode-arg", metavar="ARG", action="append", default=[])
    group.add_argument("--engine-python", metavar="PYTHON", help="interpreter that has vLLM (default: this one)")
    group.add_argument("--prefill-python", metavar="PYTHON", help="another one for the prefill servers")
    group.add_argument("--decode-python", metavar="PYTHON", help="another one for the decode servers")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    group.add_argument("--port", metavar="PORT", type=_positive, help="of the proxy (default: a free one)")
    group.add_argument("--prefill-port", metavar="PORT", type=_positive, action="append", default=[])
    group.add_argument("--decode-port", metavar="PORT", type=_positive, action="append", default=[])
    group.add_argument("--ready-check-timeout-sec", metavar="S", type=float, default=600.0)
    group.add_argument("--num-warmups", metavar="N", type=_natural, help="default: until a first load no longer stalls")


def _add_load_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("--concurrency", "--max-concurrency", metavar="N", type=_positive, default=32)
    group.add_argument("--num-prompts", metavar="N", type=_positive, default=128)
    group.add_argument(
        "--random-input-len", metavar="N|LO:HI", type=_range, default=(20, 400), help="tokens (default: 20:400)"
    )
    group.add_argument("--random-output-len", metavar="N", type=_positive, default=20)
    group.add_argument("--ignore-eos", action="store_true")
    group.add_argument("--seed", type=_natural, default=0)
    group.add_argument("--request-timeout-sec", metavar="S", type=float, default=300.0)
    group.add_argument("--settle-timeout-sec", metavar="S", type=float, default=60.0)
    group.add_argument("--extra-body", metavar="JSON", type=_json_object, default={})
    group.add_argument(
        "--verify",
        metavar="all|sample:N|budget:PCT",
        default=DEFAULT_POLICY,
        help="which outputs are teacher-forced (default: %(default)s of the engine's tokens, 128 outputs at least)",
    )
    group.add_argument(
        "--noise-floor",
        metavar="FILE",
        type=Path,
        help="measure the noise once, keep it there, and use it from then on",
    )
    group.add_argument("--reference-url", metavar="URL", help="a third server to teacher-force on")


def _add_catalogue_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("catalogue of edge cases (in place of the plain load)")
    group.add_argument(
        "--workload", metavar="NAME", action="append", default=[], help="name, family or glob; repeatable"
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument("--deployment", choices=list(RECIPES), help="launch this one; `list` says what each is")
    where.add_argument(
        "--all-deployments", action="store_true", help="each workload on the deployment it is made for, in turn"
    )
    group.add_argument(
        "--background-load", metavar="N", type=_natural, default=0, help="keep N other requests in flight beside it"
    )


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument("--result-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    group.add_argument("--result-filename", metavar="NAME", help="also write result.json to RESULT_DIR/NAME")
    group.add_argument("--save-detailed", action="store_true", help="per-request arrays in result.json")
    group.add_argument("--label")
    group.add_argument("--metadata", metavar="K=V", action="append", default=[])
    group.add_argument("--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML")
    group.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")


def _options(flags: argparse.Namespace, argv: tuple[str, ...]) -> Options:
    return Options(
        command=flags.command,
        target=_target(flags),
        load=_load(flags),
        report=_report(flags),
        catalogue=_catalogue(flags),
        selftest=selftest_options(flags) if flags.command == "selftest" else None,
        state_file=getattr(flags, "state_file", None),
        argv=argv,
    )


def _target(flags: argparse.Namespace) -> Target:
    return Target(
        attachment=_attachment(flags),
        model=flags.model,
        served_model_name=flags.served_model_name,
        kv_cache_dtype=flags.kv_cache_dtype,
        headers=_pairs(flags.header, "--header"),
        connectors=_CONNECTORS[flags.connector or "multi"],
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


def _engine(flags: argparse.Namespace) -> str:
    if flags.engine == "sim" and (flags.base_url or flags.prefill_url or flags.decode_url):
        raise UsageError("--engine sim starts a simulated deployment, and a URL names a running one: give one of them.")
    return str(flags.engine)


def _attachment(flags: argparse.Namespace) -> Attachment | None:
    if not (flags.base_url or flags.prefill_url or flags.decode_url):
        return None
    if not (flags.prefill_url and flags.decode_url):
        raise UsageError(
            "To judge a running deployment the harness reads the counters of its servers: give --prefill-url and "
            "--decode-url (each repeatable) beside --base-url, the proxy. Without --base-url it starts a proxy "
            "of its own in front of them."
        )
    return Attachment(
        tuple(_url(url, "--prefill-url") for url in flags.prefill_url),
        tuple(_url(url, "--decode-url") for url in flags.decode_url),
        _url(flags.base_url, "--base-url") if flags.base_url else None,
    )


def _load(flags: argparse.Namespace) -> LoadOptions:
    return LoadOptions(
        concurrency=flags.concurrency,
        num_prompts=flags.num_prompts,
        input_len=flags.random_input_len,
        output_len=flags.random_output_len,
        ignore_eos=flags.ignore_eos,
        seed=flags.seed,
        request_timeout=flags.request_timeout_sec,
        settle_timeout=flags.settle_timeout_sec,
        extra_body=flags.extra_body,
        verify=_verify(flags.verify),
        noise_floor=flags.noise_floor,
        reference_url=_url(flags.reference_url, "--reference-url") if flags.reference_url else None,
    )


def _catalogue(flags: argparse.Namespace) -> CatalogueOptions:
    launches = flags.deployment or flags.all_deployments
    if launches and (flags.base_url or flags.prefill_url or flags.decode_url):
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
    ports = {"proxy": flags.port} if flags.port else {}
    ports |= {f"prefill-{index}": port for index, port in enumerate(flags.prefill_port)}
    ports |= {f"decode-{index}": port for index, port in enumerate(flags.decode_port)}
    return ports


def _verify(text: str) -> str:
    VerifyPolicy.parse(text)
    return text


def _url(text: str, flag: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise UsageError(f"{flag} {text}: not a URL. Give scheme, host and port, as in http://127.0.0.1:8000.")
    return text.rstrip("/").removesuffix("/v1")


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"{flag} {text}: give it as KEY=VALUE.")
        pairs[key] = value
    return pairs


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    bounds = _positive(low), _positive(high or low)
    if bounds[0] > bounds[1]:
        raise argparse.ArgumentTypeError(f"{text} runs backwards")
    return bounds


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value
