"""The flags of every command, with their types and defaults. What ``vllm bench serve`` has too keeps its name."""

import argparse
import json
from pathlib import Path
from typing import Any, NoReturn

from harness.catalogue.presets import PRESETS
from harness.cli.numbers import natural, port, positive, seconds, span
from harness.cli.selftest_flags import add_selftest_flags
from harness.deploy.plan import OFFLOAD_BYTES
from harness.errors import ExitCode
from harness.facts import Connector
from harness.redact import redact_text
from harness.verify.asking.policy import DEFAULT as DEFAULT_POLICY

CONNECTORS = {
    "nixl": (Connector.NIXL,),
    "offloading": (Connector.OFFLOADING,),
    "multi": (Connector.NIXL, Connector.OFFLOADING),
    "nixl,offloading": (Connector.NIXL, Connector.OFFLOADING),
    "offloading,nixl": (Connector.OFFLOADING, Connector.NIXL),
}


class _Parser(argparse.ArgumentParser):
    """Its errors are one paragraph, as all of the harness's are: not sixty lines of usage with the error below them."""

    def error(self, message: str) -> NoReturn:
        # It repeats what was given, and a URL or a header may have credentials in it.
        self.exit(ExitCode.USAGE, f"error: {redact_text(message)}. All that there is: {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser: argparse.ArgumentParser = _Parser(
        prog="python -m harness",
        description="Proves a prefill/decode deployment of an LLM server right under load.",
        epilog="Exit codes: 0 valid, 1 invalid, 2 usage, 3 unknown, 4 the harness itself failed.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="fire a load and judge it (the default command)", allow_abbrev=False)
    serve = commands.add_parser("serve", help="hold a deployment up and print its facts as JSON", allow_abbrev=False)
    check = commands.add_parser("check", help="judge a stored run again", allow_abbrev=False)
    doctor = commands.add_parser(
        "doctor", help="say what is wrong with a deployment before a run, with the flags of run", allow_abbrev=False
    )
    shrink = commands.add_parser("shrink", help="reduce a failing run to the least that fails", allow_abbrev=False)
    for command in (run, doctor, serve, shrink):
        add_attach_flags(command)
        add_launch_flags(command)
    add_selftest_flags(commands)
    commands.add_parser("list", help="show the catalogue of workloads", allow_abbrev=False)
    for command in (run, doctor):
        _add_load_flags(command)
        _add_sending_flags(command)
        _add_catalogue_flags(command)
        _add_report_flags(command)
    _add_check_flags(check)
    _add_shrink_flags(shrink)
    _add_sending_flags(shrink)
    serve.add_argument("--state-file", type=Path, help="write the facts there as well, once all is ready")
    serve.add_argument("--result-dir", type=Path, default=Path("runs"), help="where logs go (default: %(default)s)")
    serve.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")
    return parser


def add_attach_flags(parser: argparse.ArgumentParser) -> None:
    """Where a running deployment is."""
    group = parser.add_argument_group("attach to a running deployment")
    group.add_argument("--base-url", metavar="URL", help="the proxy; without it the harness starts its own")
    group.add_argument("--prefill-url", metavar="URL", action="append", default=[], help="repeatable")
    group.add_argument("--decode-url", metavar="URL", action="append", default=[], help="repeatable")
    group.add_argument("--header", metavar="KEY=VALUE", action="append", default=[], help="sent with every request")
    group.add_argument(
        "--kv-cache-dtype", metavar="DTYPE", help="if the servers were started with one and do not say (no dev mode)"
    )
    group.add_argument("--served-model-name", metavar="NAME", help="default: what the decode server names first")


def add_launch_flags(parser: argparse.ArgumentParser) -> None:
    """What is launched otherwise."""
    group = parser.add_argument_group("launch a deployment")
    group.add_argument("--engine", choices=["vllm", "sim"], default="vllm", help="sim: the simulated pair, in a second")
    group.add_argument("--model", metavar="PATH|NAME", help="default: a small canary model made from a seed")
    group.add_argument(
        "--connector",
        choices=list(CONNECTORS),
        metavar="NAME",  # two of the names have a comma in them
        help="nixl, offloading, multi (NIXL first, then offloading; the default), or offloading,nixl",
    )
    group.add_argument("--prefill", metavar="N", type=positive, default=1, help="prefill servers (default: 1)")
    group.add_argument("--decode", metavar="N", type=positive, default=1, help="decode servers (default: 1)")
    group.add_argument("--block-size", metavar="TOKENS", type=positive, help="default: the engine's own")
    group.add_argument("--num-gpu-blocks", metavar="N", type=positive, help="blocks in each server's KV pool")
    group.add_argument(
        "--offload-bytes",
        metavar="N",
        type=positive,
        default=OFFLOAD_BYTES,
        help="of each server's tier (default: %(default)s)",
    )
    group.add_argument(
        "--nixl-config",
        metavar="JSON",
        type=_json_object,
        default={},
        help="the NIXL connector's kv_connector_extra_config, as in '{\"kv_lease_duration\": 5}'",
    )
    group.add_argument("--engine-arg", metavar="ARG", action="append", default=[], help="passed to every server")
    group.add_argument("--prefill-arg", metavar="ARG", action="append", default=[], help="to prefill's alone")
    group.add_argument("--decode-arg", metavar="ARG", action="append", default=[], help="to decode's alone")
    group.add_argument("--engine-python", metavar="PYTHON", help="interpreter that has vLLM (default: this one)")
    group.add_argument("--prefill-python", metavar="PYTHON", help="another one for the prefill servers")
    group.add_argument("--decode-python", metavar="PYTHON", help="another one for the decode servers")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: what is found")
    group.add_argument("--port", metavar="PORT", type=port, help="of the proxy (default: a free one)")
    group.add_argument("--prefill-port", metavar="PORT", type=port, action="append", default=[], help="repeatable")
    group.add_argument("--decode-port", metavar="PORT", type=port, action="append", default=[], help="repeatable")
    group.add_argument(
        "--ready-check-timeout-sec", metavar="S", type=seconds, default=600.0, help="to start up (default: %(default)s)"
    )
    group.add_argument("--num-warmups", metavar="N", type=natural, help="requests before the run; 0: none (default: 8)")


def _add_load_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument(
        "--concurrency",
        "--max-concurrency",
        metavar="N",
        type=positive,
        default=32,
        help="requests in flight (default: 32)",
    )
    group.add_argument("--num-prompts", metavar="N", type=positive, help="default: 128, or all that the dataset has")
    group.add_argument("--dataset-name", choices=["random", "custom"], help="default: custom where a path is given")
    group.add_argument("--dataset-path", metavar="FILE.jsonl", type=Path, help="a load from a file, a request a line")
    group.add_argument("--custom-output-len", metavar="N", type=positive, help="for lines without output_tokens")
    group.add_argument(
        "--random-input-len", metavar="N|LO:HI", type=span, default=(20, 400), help="tokens (default: 20:400)"
    )
    group.add_argument("--random-output-len", metavar="N", type=positive, default=20, help="tokens (default: 20)")
    group.add_argument("--ignore-eos", action="store_true", help="answers go on to their full length")
    group.add_argument("--seed", type=natural, default=0, help="of prompts, and of what is probed (default: 0)")
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
        help="keep measured noise there, and measure it again after a day",
    )


def _add_sending_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sending")
    group.add_argument(
        "--request-timeout-sec", metavar="S", type=seconds, default=300.0, help="for an answer (default: %(default)s)"
    )
    group.add_argument(
        "--settle-timeout-sec",
        metavar="S",
        type=seconds,
        default=60.0,
        help="for the servers to come to rest before and after the load (default: %(default)s)",
    )
    group.add_argument("--extra-body", metavar="JSON", type=_json_object, default={}, help="fields of every request")
    group.add_argument("--reference-url", metavar="URL", help="a third server to teacher-force on")
    group.add_argument(
        "--probe-tiers",
        action="store_true",
        help="ask the offload tiers of attached servers for their blocks, too: this EMPTIES the servers' prefix caches "
        "after the load (servers that the harness launched are asked anyway)",
    )


def _add_catalogue_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("catalogue of edge cases (in place of the plain load)")
    group.add_argument(
        "--workload", metavar="NAME", action="append", default=[], help="name, family or glob; repeatable"
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument("--deployment", choices=list(PRESETS), help="launch this one; `list` says what each is")
    where.add_argument(
        "--all-deployments", action="store_true", help="each workload on the deployment it is made for, in turn"
    )
    group.add_argument(
        "--background-load", metavar="N", type=natural, default=0, help="keep N other requests in flight beside it"
    )


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument("--result-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    group.add_argument("--result-filename", metavar="NAME", help="also write result.json to RESULT_DIR/NAME")
    group.add_argument("--save-detailed", action="store_true", help="per-request arrays in result.json")
    group.add_argument("--label", help="part of the run's directory name, and of result.json")
    group.add_argument("--metadata", metavar="K=V", action="append", default=[], help="keys of your own in result.json")
    group.add_argument("--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML")
    group.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")


def _add_check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run's directory: the one with history.jsonl")
    parser.add_argument("--save", action="store_true", help="replace result.json there with what this version says")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML")
    parser.add_argument("--plain", action="store_true", help="plain lines")


def _add_shrink_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run's directory: the one with history.jsonl")
    parser.add_argument(
        "--tries",
        metavar="N",
        type=positive,
        help="of one candidate (default: by how often the whole load fails); fewer keep to what fails more often",
    )
    parser.add_argument("--max-tries", metavar="N", type=positive, default=200, help="in all (default: %(default)s)")
    parser.add_argument(
        "--time-budget-sec", metavar="S", type=seconds, default=1800.0, help="for the search (default: %(default)s)"
    )
    parser.add_argument(
        "--confirm", metavar="N", type=positive, default=5, help="runs of the result (default: %(default)s)"
    )
    parser.add_argument("--result-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value
