"""The flags of every command, with their types and defaults. Flags of ``vllm bench serve`` have the same names here."""

import argparse
import json
import os
from pathlib import Path
from typing import Any, NoReturn

from harness.catalogue.presets import PRESETS
from harness.cli.numbers import natural, port, positive, rates, seconds, span
from harness.deploy.target import CONNECTORS, OFFLOAD_BYTES
from harness.errors import ExitCode
from harness.redact import redact_text
from harness.selftest import SelftestOptions
from harness.verify.asking.policy import DEFAULT as DEFAULT_POLICY


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one paragraph, without sixty lines of usage above it."""

    def error(self, message: str) -> NoReturn:
        # The message quotes the command line, and a URL or a header may have credentials in it.
        self.exit(ExitCode.USAGE, f"error: {redact_text(message)}. To see all flags: {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser: argparse.ArgumentParser = _Parser(
        prog="python -m harness",
        description="Proves that a prefill/decode deployment is right under load, or says what is wrong with it.",
        epilog="Exit codes: 0 valid, 1 invalid, 2 usage error, 3 unknown, 4 the harness itself failed. "
        "Flags of a command: python -m harness COMMAND --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run", help="send a load, verify the answers, and judge (the default command)", allow_abbrev=False
    )
    serve = commands.add_parser(
        "serve", help="launch a deployment, print its URLs as JSON, and keep it running", allow_abbrev=False
    )
    check = commands.add_parser("check", help="judge a stored run again, offline", allow_abbrev=False)
    doctor = commands.add_parser(
        "doctor", help="check a deployment before a run; takes the flags of run", allow_abbrev=False
    )
    shrink = commands.add_parser(
        "shrink", help="reduce a failing run to the smallest load that still fails", allow_abbrev=False
    )
    for command in (run, doctor, serve, shrink):
        add_attach_flags(command)
        add_launch_flags(command)
    selftest = commands.add_parser(
        "selftest",
        help="plant each known bug in a simulated pair, and see which checker catches it",
        allow_abbrev=False,
    )
    _add_selftest_flags(selftest)
    commands.add_parser("list", help="list the workloads and deployments of the catalogue", allow_abbrev=False)
    for command in (run, doctor):
        _add_load_flags(command)
        _add_sending_flags(command)
        _add_catalogue_flags(command)
        _add_report_flags(command)
    _add_check_flags(check)
    _add_shrink_flags(shrink)
    _add_sending_flags(shrink)
    serve.add_argument("--state-file", type=Path, help="also write the JSON to this file when all servers are ready")
    _add_result_dir(serve)
    return parser


def add_attach_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that attach to a running deployment."""
    group = parser.add_argument_group("attach to a running deployment")
    group.add_argument("--base-url", metavar="URL", help="the proxy's URL; without it the harness starts its own proxy")
    group.add_argument("--prefill-url", metavar="URL", action="append", default=[], help="a prefill server; repeatable")
    group.add_argument("--decode-url", metavar="URL", action="append", default=[], help="a decode server; repeatable")
    group.add_argument(
        "--header",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an HTTP header sent with every request; repeatable",
    )
    group.add_argument(
        "--kv-cache-dtype", metavar="DTYPE", help="the servers' --kv-cache-dtype, if they have one and do not report it"
    )
    group.add_argument(
        "--served-model-name", metavar="NAME", help="default: the first model that the decode server lists"
    )


def add_launch_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that launch a deployment."""
    group = parser.add_argument_group("launch a deployment")
    group.add_argument("--engine", choices=["vllm", "sim"], default="vllm", help="vllm, or sim for simulated servers")
    group.add_argument(
        "--model", metavar="PATH|NAME", help="default when launching: a small canary model made from a seed"
    )
    group.add_argument(
        "--connector",
        choices=list(CONNECTORS),
        metavar="NAME",
        help="nixl, offloading, multi (NIXL first, then offloading; the default), or offloading,nixl",
    )
    group.add_argument("--prefill", metavar="N", type=positive, default=1, help="prefill servers (default: 1)")
    group.add_argument("--decode", metavar="N", type=positive, default=1, help="decode servers (default: 1)")
    group.add_argument(
        "--block-size", metavar="TOKENS", type=positive, help="tokens of a KV block (default: the engine's own)"
    )
    group.add_argument("--num-gpu-blocks", metavar="N", type=positive, help="blocks in each server's KV pool")
    group.add_argument(
        "--offload-bytes",
        metavar="N",
        type=positive,
        default=OFFLOAD_BYTES,
        help="size of each server's offload tier (default: %(default)s)",
    )
    group.add_argument(
        "--nixl-config",
        metavar="JSON",
        type=_json_object,
        default={},
        help="the NIXL connector's kv_connector_extra_config, as in '{\"kv_lease_duration\": 5}'",
    )
    group.add_argument(
        "--engine-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="an argument of vLLM, for every server; repeatable",
    )
    group.add_argument("--prefill-arg", metavar="ARG", action="append", default=[], help="for prefill servers only")
    group.add_argument("--decode-arg", metavar="ARG", action="append", default=[], help="for decode servers only")
    group.add_argument(
        "--engine-python", metavar="PYTHON", help="a Python interpreter that has vLLM (default: this one)"
    )
    group.add_argument("--prefill-python", metavar="PYTHON", help="another interpreter for prefill servers")
    group.add_argument("--decode-python", metavar="PYTHON", help="another interpreter for decode servers")
    group.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="default: CUDA if there is a GPU, else the CPU",
    )
    group.add_argument("--port", metavar="PORT", type=port, help="the proxy's port (default: a free one)")
    group.add_argument(
        "--prefill-port", metavar="PORT", type=port, action="append", default=[], help="repeatable, one for each server"
    )
    group.add_argument(
        "--decode-port", metavar="PORT", type=port, action="append", default=[], help="repeatable, one for each server"
    )
    group.add_argument(
        "--ready-check-timeout-sec",
        metavar="S",
        type=seconds,
        default=600.0,
        help="time limit for starting (default: %(default)s)",
    )
    group.add_argument("--num-warmups", metavar="N", type=natural, help="requests sent before the run (default: 8)")


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
    group.add_argument(
        "--num-prompts", metavar="N", type=positive, help="requests (default: 128, or all of the dataset)"
    )
    group.add_argument(
        "--dataset-name", choices=["random", "custom"], help="default: custom if --dataset-path is given, else random"
    )
    group.add_argument("--dataset-path", metavar="FILE.jsonl", type=Path, help="a JSONL file with one request per line")
    group.add_argument(
        "--custom-output-len", metavar="N", type=positive, help="tokens of an answer, for lines without output_tokens"
    )
    group.add_argument(
        "--random-input-len",
        metavar="N|LO:HI",
        type=span,
        default=(20, 400),
        help="tokens of a prompt, or least and most (default: 20:400)",
    )
    group.add_argument(
        "--random-output-len", metavar="N", type=positive, default=20, help="tokens of an answer (default: 20)"
    )
    group.add_argument("--ignore-eos", action="store_true", help="let each answer reach its full length")
    group.add_argument("--seed", type=natural, default=0, help="decides the prompts, and what is verified (default: 0)")
    group.add_argument(
        "--verify",
        metavar="all|sample:N|budget:PCT",
        default=DEFAULT_POLICY,
        help="which outputs are verified by teacher forcing: all, N of them, or PCT percent of the load's tokens and "
        "at least 128 outputs (default: %(default)s)",
    )
    group.add_argument(
        "--noise-floor",
        metavar="FILE",
        type=Path,
        help="keep the measured noise in this file; it is measured again after a day",
    )


def _add_sending_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sending")
    group.add_argument(
        "--request-timeout-sec",
        metavar="S",
        type=seconds,
        default=300.0,
        help="time limit for an answer (default: %(default)s)",
    )
    group.add_argument(
        "--settle-timeout-sec",
        metavar="S",
        type=seconds,
        default=60.0,
        help="time limit for the servers to settle before and after the load (default: %(default)s)",
    )
    group.add_argument(
        "--extra-body", metavar="JSON", type=_json_object, default={}, help="fields added to every request"
    )
    group.add_argument(
        "--reference-url", metavar="URL", help="another server for teacher forcing (default: the prefill servers)"
    )
    group.add_argument(
        "--probe-tiers",
        action="store_true",
        help="also verify the offload tiers of attached servers: this EMPTIES their prefix caches after the load "
        "(always done with servers that the harness launched)",
    )


def _add_catalogue_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("catalogue of workloads (instead of the plain load)")
    group.add_argument(
        "--workload", metavar="NAME", action="append", default=[], help="a name, family or glob; repeatable"
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--deployment", choices=list(PRESETS), metavar="NAME", help="launch this deployment; `list` describes each"
    )
    where.add_argument(
        "--all-deployments", action="store_true", help="run each workload on the deployment it is made for"
    )
    group.add_argument(
        "--background-load",
        metavar="N",
        type=natural,
        default=0,
        help="keep N other requests in flight beside each workload",
    )


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument("--result-filename", metavar="NAME", help="also write result.json to RESULT_DIR/NAME")
    group.add_argument(
        "--save-detailed", action="store_true", help="also write arrays with one entry per request to result.json"
    )
    group.add_argument("--label", help="part of the run's directory name, and of result.json")
    group.add_argument(
        "--metadata", metavar="K=V", action="append", default=[], help="a key of your own for result.json; repeatable"
    )
    group.add_argument("--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML")
    _add_result_dir(group)


def _add_result_dir(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument("--result-dir", type=Path, default=Path("runs"), help="where runs are stored (default: runs)")
    parser.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")


def _add_check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run's directory: the one with history.jsonl")
    parser.add_argument("--save", action="store_true", help="replace result.json there")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML")
    parser.add_argument("--plain", action="store_true", help="plain lines")


def _add_shrink_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run's directory: the one with history.jsonl")
    parser.add_argument(
        "--tries",
        metavar="N",
        type=positive,
        help="tries of each smaller load (default: by how often the whole load fails)",
    )
    parser.add_argument(
        "--max-tries", metavar="N", type=positive, default=200, help="tries in all (default: %(default)s)"
    )
    parser.add_argument(
        "--time-budget-sec",
        metavar="S",
        type=seconds,
        default=1800.0,
        help="time limit for the search (default: %(default)s)",
    )
    parser.add_argument(
        "--confirm", metavar="N", type=positive, default=5, help="runs that confirm the result (default: %(default)s)"
    )
    _add_result_dir(parser)


_SELFTEST = SelftestOptions()


def _add_selftest_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bug", metavar="NAME", action="append", default=[], help="plant only this bug; repeatable")
    parser.add_argument(
        "--rates",
        metavar="N,N",
        type=rates,
        default=_SELFTEST.one_in,
        help="plant a bug in 1 of N requests, for each N (default: 20,200)",
    )
    numbers = {
        "--requests": (_SELFTEST.requests, "requests of one trial, at most"),
        "--repeats": (_SELFTEST.repeats, "trials of each bug at each rate"),
        "--clean-requests": (_SELFTEST.clean_requests, "requests of all trials without a bug"),
        "--jobs": (os.cpu_count() or 1, "processes at a time"),
    }
    for flag, (default, text) in numbers.items():
        parser.add_argument(flag, metavar="N", type=positive, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--flip-rate", metavar="SHARE", type=float, default=_SELFTEST.flip_rate, help=argparse.SUPPRESS)
    parser.add_argument("--seed", metavar="N", type=natural, default=0, help="decides all trials (default: 0)")
    _add_result_dir(parser)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object: give {...}")
    return value
