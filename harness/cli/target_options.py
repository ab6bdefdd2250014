"""The deployment that a command line describes, to attach to or to launch."""

import argparse
import os
import re
from collections.abc import Sequence
from functools import partial

from harness.cli.flags import add_attach_flags, add_launch_flags
from harness.deploy.addresses import address, refuse_two_credentials
from harness.deploy.target import CONNECTORS, Attachment, Target
from harness.errors import UsageError
from harness.facts import Role
from harness.sim import USUAL

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def target_of(flags: argparse.Namespace) -> Target:
    """The deployment. Raises UsageError if flags contradict each other, or an address is none."""
    attachment, headers = _attachment(flags), _headers(flags.header)
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


def names_servers(flags: argparse.Namespace) -> bool:
    """Whether the flags name a running deployment; without, one is launched."""
    return bool(flags.base_url is not None or flags.prefill_url or flags.decode_url)


def _attachment(flags: argparse.Namespace) -> Attachment | None:
    if not names_servers(flags):
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
        optional_address(flags.base_url, "--base-url"),
    )


def _engine(flags: argparse.Namespace) -> str:
    if flags.engine == "sim" and names_servers(flags):
        raise UsageError("--engine sim starts a simulated deployment, but a URL names a running one: give one of them.")
    return str(flags.engine)


def _sim_noise(flags: argparse.Namespace) -> str:
    """The simulator's noise; ``selftest``, which launches nothing, has none here."""
    kind = flags.sim_noise or USUAL
    if kind != USUAL and flags.engine != "sim" and flags.command != "selftest":
        raise UsageError("--sim-noise is for simulated servers: add --engine sim, or leave --sim-noise out.")
    return str(kind)


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


def optional_address(text: str | None, flag: str) -> str | None:
    """The address; None if the flag was left out. An empty value (an unset shell variable) is a wrong address."""
    return None if text is None else address(text, flag)


def address_with_variables(text: str, flag: str) -> str:
    """An address in which ``${NAME}`` stands for an environment variable, for its password. Raises UsageError."""
    return address(_VARIABLE.sub(partial(_from_environment, flag, ""), text), flag)


def _headers(texts: Sequence[str]) -> dict[str, str]:
    """Headers, with ``${NAME}`` in a value replaced by the environment variable.

    Every user of a machine can see the arguments of its processes, so that a key is better not among them.
    """
    pairs = pairs_of(texts, "--header")
    return {
        key: _VARIABLE.sub(partial(_from_environment, "--header", f", which the header {key} names"), value)
        for key, value in pairs.items()
    }


def _from_environment(flag: str, where: str, found: re.Match[str]) -> str:
    value = os.environ.get(found[1])
    if not value:
        raise UsageError(f"{flag}: the environment variable {found[1]} is not set{where}.")
    return value


def pairs_of(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Keys and values of texts like ``KEY=VALUE``. Raises UsageError, which names ``flag``, if one is not like that."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            # A header's value may be a credential.
            shown = flag if flag == "--header" else f"{flag} {text}"
            raise UsageError(f"{shown}: give the value as KEY=VALUE.")
        pairs[key] = value
    return pairs
