"""The flags of every command, with their types and defaults. Flags of ``vllm bench serve`` have the same names here."""

import argparse
import json
import os
from pathlib import Path
from typing import Any, NoReturn

from harness.catalogue.presets import PRESETS
from harness.cli.file_flags import add_file_flags
from harness.cli.flag import Flags
from harness.cli.flag import value as _value
from harness.cli.flag import values as _values
from harness.cli.load_flags import add_load_flags
from harness.cli.numbers import interval, natural, port, positive, rates, seconds
from harness.deploy.target import CONNECTORS, OFFLOAD_BYTES, POLICIES
from harness.errors import ExitCode
from harness.redact import redact_text
from harness.run.transport import METRICS_INTERVAL
from harness.selftest import SelftestOptions
from harness.sim import KINDS, USUAL


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one paragraph, without sixty lines of usage above it."""

    def error(self, message: str) -> NoReturn:
        command = f"{self.prog} COMMAND" if self._subparsers else self.prog
        # The message quotes the command line, and a URL or a header may have credentials in it.
        self.exit(ExitCode.USAGE, f"error: {redact_text(message)}. To see all flags: {command} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser: argparse.ArgumentParser = _Parser(
        prog="python -m harness",
        description="Proves that a prefill/decode deployment is right under load, or says what is wrong with it.",
        epilog="Exit codes: 0 valid, 1 invalid, 2 usage error, 3 unknown, 4 the harness itself failed. "
        "Flags of a command: python -m harness COMMAND --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, allow_abbrev=False)

    run = command("run", "send a load, verify the answers, and judge (the default command)")
    serve = command("serve", "launch a deployment, print its URLs as JSON, and keep it running")
    check = command("check", "judge a stored run again, offline")
    report = command("report", "write the HTML report of a stored run again")
    doctor = command("doctor", "check a deployment before a run; takes the flags of run")
    compare = command("compare", "say what changed between two sets of stored runs, and whether it is real")
    shrink = command("shrink", "reduce a failing run to the smallest load that still fails")
    for one in (run, doctor, serve, shrink):
        add_attach_flags(one)
        add_launch_flags(one)
    _add_selftest_flags(
        command("selftest", "plant each known bug in a simulated pair, and see which checker catches it")
    )
    command("list", "list the workloads and deployments of the catalogue, and the faults")
    _add_fault_flags(run)
    for one in (run, doctor):
        add_load_flags(one)
        _add_sending_flags(one)
        _add_catalogue_flags(one)
        _add_report_flags(one)
    _add_check_flags(check)
    _add_compare_flags(compare)
    _add_page_flags(report)
    _add_shrink_flags(shrink)
    _add_sending_flags(shrink)
    serve.add_argument("--state-file", type=Path, help="also write the JSON to this file when all servers are ready")
    _add_result_dir(serve)
    return parser


def add_attach_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that attach to a running deployment."""
    group = parser.add_argument_group("attach to a running deployment")
    _value(group, "--base-url", "URL", "the proxy's URL; without it the harness starts its own proxy")
    _values(group, "--prefill-url", "URL", "a prefill server; repeatable")
    _values(group, "--decode-url", "URL", "a decode server; repeatable")
    text = "an HTTP header sent with every request; ${NAME} in it stands for an environment variable; repeatable"
    _values(group, "--header", "KEY=VALUE", text)
    _value(group, "--kv-cache-dtype", "DTYPE", "the servers' --kv-cache-dtype, if they have one and do not report it")
    _value(group, "--served-model-name", "NAME", "default: the first model that the decode server lists")


def add_launch_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that launch a deployment."""
    group = parser.add_argument_group("launch a deployment")
    group.add_argument("--engine", choices=["vllm", "sim"], default="vllm", help="vllm, or sim for simulated servers")
    text = f"how correct answers of simulated servers differ: {', '.join(KINDS)} (default: %(default)s)"
    group.add_argument("--sim-noise", choices=KINDS, metavar="KIND", default=USUAL, help=text)
    _value(group, "--model", "PATH|NAME", "default when launching: a small canary model made from a seed")
    group.add_argument(
        "--connector",
        choices=list(CONNECTORS),
        metavar="NAME",
        help="nixl, offloading, multi (NIXL first, then offloading; the default), or offloading,nixl",
    )
    _value(group, "--prefill", "N", "prefill servers (default: 1)", positive, 1)
    _value(group, "--decode", "N", "decode servers (default: 1)", positive, 1)
    _value(group, "--block-size", "TOKENS", "tokens per KV block (default: the engine's own)", positive)
    _value(group, "--num-gpu-blocks", "N", "blocks in each server's KV pool", positive)
    _value(
        group,
        "--offload-bytes",
        "N",
        "size in bytes of each server's offload tier (default: %(default)s)",
        positive,
        OFFLOAD_BYTES,
    )
    text = "the NIXL connector's kv_connector_extra_config, as in '{\"kv_lease_duration\": 5}'"
    _value(group, "--nixl-config", "JSON", text, _json_object, {})
    text = "what decode does with a request whose KV it could not load: fail or recompute (default: the engine's)"
    group.add_argument("--kv-load-failure-policy", choices=POLICIES, metavar="POLICY", help=text)
    _values(group, "--engine-arg", "ARG", "an argument of vLLM, for every server; repeatable")
    _values(group, "--prefill-arg", "ARG", "an argument of vLLM, for prefill servers only; repeatable")
    _values(group, "--decode-arg", "ARG", "an argument of vLLM, for decode servers only; repeatable")
    _value(group, "--engine-python", "PYTHON", "a Python interpreter that has vLLM (default: this one)")
    _value(group, "--prefill-python", "PYTHON", "another interpreter for prefill servers")
    _value(group, "--decode-python", "PYTHON", "another interpreter for decode servers")
    text = "default: CUDA if there is a GPU, else the CPU"
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help=text)
    _value(group, "--port", "PORT", "the proxy's port (default: a free one)", port)
    _values(group, "--prefill-port", "PORT", "the port of a prefill server; repeatable, one for each server", port)
    _values(group, "--decode-port", "PORT", "the port of a decode server; repeatable, one for each server", port)
    text = "time limit for starting, in seconds (default: %(default)s)"
    _value(group, "--ready-check-timeout-sec", "S", text, seconds, 600.0)
    _value(group, "--num-warmups", "N", "warm-up requests sent before the run (default: 8)", natural)


def _add_sending_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sending")
    text = "time limit for an answer, in seconds (default: %(default)s)"
    _value(group, "--request-timeout-sec", "S", text, seconds, 300.0)
    text = "time limit for the servers to settle before and after the load, in seconds (default: %(default)s)"
    _value(group, "--settle-timeout-sec", "S", text, seconds, 60.0)
    text = "seconds between readings of the servers' /metrics during the load; 0: none (default: %(default)s)"
    _value(group, "--metrics-interval-sec", "S", text, interval, METRICS_INTERVAL)
    _value(group, "--extra-body", "JSON", "fields added to every request", _json_object, {})
    _value(group, "--reference-url", "URL", "another server for teacher forcing (default: the prefill servers)")
    group.add_argument(
        "--probe-tiers",
        action="store_true",
        help="also verify the offload tiers of attached servers: this EMPTIES their prefix caches after the load "
        "(always done with servers that the harness launched)",
    )


def _add_fault_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("faults")
    text = (
        "cause a fault during the load, as in pause:server=decode-0,after=2,for=3 (seconds); repeatable; `list` "
        "describes each"
    )
    _values(group, "--fault", "NAME[:OPTION=VALUE,…]", text)
    text = "N faults of several kinds at random moments (--seed) of a load of --duration-sec S"
    _value(group, "--faults", "N", text, positive)


def _add_catalogue_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("catalogue of workloads (instead of the plain load)")
    _values(group, "--workload", "NAME", "a name, family or glob; repeatable")
    where = group.add_mutually_exclusive_group()
    text = "launch this deployment; `list` describes each"
    where.add_argument("--deployment", choices=list(PRESETS), metavar="NAME", help=text)
    text = "run each workload on the deployment it is made for"
    where.add_argument("--all-deployments", action="store_true", help=text)
    _value(group, "--background-load", "N", "keep N other requests in flight beside each workload", natural, 0)


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    _value(group, "--result-filename", "NAME", "also write result.json to RESULT_DIR/NAME")
    text = "also write arrays with one entry per request to result.json"
    group.add_argument("--save-detailed", action="store_true", help=text)
    _value(group, "--label", "LABEL", "part of the run's directory name, and of result.json")
    _values(group, "--metadata", "K=V", "a key of your own for result.json; repeatable")
    _add_junit(group)
    group.add_argument("--no-html", action="store_true", help="do not write report.html to the run's directory")
    _add_result_dir(group)


def _add_junit(flags: Flags) -> None:
    _value(flags, "--junit", "FILE", "also write the checks as JUnit XML", Path)
    add_file_flags(flags)


def _add_result_dir(flags: Flags) -> None:
    _value(flags, "--result-dir", "RESULT_DIR", "where runs are stored (default: runs)", Path, Path("runs"))
    flags.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")


def _add_run_dir(parser: argparse.ArgumentParser) -> None:
    text = "the run's directory: the one with history.jsonl"
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help=text)


def _add_check_flags(parser: argparse.ArgumentParser) -> None:
    _add_run_dir(parser)
    parser.add_argument("--save", action="store_true", help="replace result.json there")
    _add_junit(parser)
    parser.add_argument("--plain", action="store_true", help="plain lines")


def _add_compare_flags(parser: argparse.ArgumentParser) -> None:
    text = "BASELINE RUN: a run's directory, a directory of runs, a glob in quotes, or several with commas between"
    parser.add_argument("runs", metavar="BASELINE RUN", nargs="*", help=text)
    _values(parser, "--baseline", "RUN_DIR", "runs of the baseline, in place of BASELINE; repeatable")
    _values(parser, "--run", "RUN_DIR", "the runs to compare with them, in place of RUN; repeatable")
    text = (
        "fail if the change is larger, as in p99_ttft:+10%%, p99_itl:+2ms, output_throughput:-5%%, mismatch:+0; "
        "repeatable"
    )
    _values(parser, "--fail-on", "METRIC:CHANGE", text)
    text = "compare although this setting differs; repeatable"
    _values(parser, "--allow-different", "SETTING", text)
    _value(parser, "--output", "FILE", "also write the comparison as JSON", Path)
    parser.add_argument("--plain", action="store_true", help="plain lines")


def _add_page_flags(parser: argparse.ArgumentParser) -> None:
    _add_run_dir(parser)
    _value(parser, "--output", "FILE", "the file to write (default: RUN_DIR/report.html)", Path)


def _add_shrink_flags(parser: argparse.ArgumentParser) -> None:
    _add_run_dir(parser)
    text = "tries of each smaller load (default: by how often the whole load fails)"
    _value(parser, "--tries", "N", text, positive)
    _value(parser, "--max-tries", "N", "tries in all (default: %(default)s)", positive, 200)
    text = "time limit for the search, in seconds (default: %(default)s)"
    _value(parser, "--time-budget-sec", "S", text, seconds, 1800.0)
    _value(parser, "--confirm", "N", "tries that confirm the result (default: %(default)s)", positive, 5)
    _add_result_dir(parser)


_SELFTEST = SelftestOptions()


def _add_selftest_flags(parser: argparse.ArgumentParser) -> None:
    _values(parser, "--bug", "NAME", "plant only this bug; repeatable")
    text = "plant a bug in 1 of N requests, for each N (default: 20,200)"
    _value(parser, "--rates", "N,N", text, rates, _SELFTEST.one_in)
    numbers = {
        "--requests": (_SELFTEST.requests, "requests of one trial, at most"),
        "--repeats": (_SELFTEST.repeats, "trials of each bug at each rate"),
        "--clean-requests": (_SELFTEST.clean_requests, "requests of all trials without a bug, together"),
        "--jobs": (os.cpu_count() or 1, "processes at a time"),
    }
    for flag, (default, text) in numbers.items():
        _value(parser, flag, "N", f"{text} (default: {default})", positive, default)
    text = f"one kind of noise for all trials: {', '.join(KINDS)} (default: each in turn)"
    parser.add_argument("--sim-noise", choices=KINDS, metavar="KIND", help=text)
    _value(parser, "--flip-rate", "SHARE", argparse.SUPPRESS, float, _SELFTEST.flip_rate)
    _value(parser, "--seed", "N", "seed of all trials (default: 0)", natural, 0)
    _add_result_dir(parser)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object: give {...}")
    return value
