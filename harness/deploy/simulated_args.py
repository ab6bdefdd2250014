"""Reads the vLLM arguments that the simulator models into its configuration."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from harness.errors import UsageError

_FIELDS = {
    "--block-size": "block_size",
    "--max-model-len": "max_model_len",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--max-num-seqs": "max_num_seqs",
    "--num-gpu-blocks-override": "num_blocks",
    "--shutdown-timeout": "shutdown_timeout",
}


class CannotSimulate(UsageError):  # noqa: N818 - reads as what happened
    """The simulator does not model an argument or a case; only a real engine can run it."""


def simulated_fields(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Fields of SimConfig for vLLM arguments, each of which may hold several words; the last value of a flag is used.

    Raises CannotSimulate if the simulator does not know an argument.
    """
    words = [word for argument in arguments for word in shlex.split(argument)]
    return {name: value for name, value in vars(_parser().parse_args(words)).items() if value is not None}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise; argparse would end the process."""
        known = ", ".join((*_FIELDS, "--[no-]enable-prefix-caching"))
        raise CannotSimulate(
            f"The simulated pair cannot be started with these arguments: {message}. Of vLLM's arguments it supports "
            f"{known}."
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag, name in _FIELDS.items():
        parser.add_argument(flag, dest=name, type=int)
    parser.add_argument("--enable-prefix-caching", dest="prefix_caching", action=argparse.BooleanOptionalAction)
    return parser
