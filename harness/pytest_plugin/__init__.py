"""The catalogue as pytest cases: fixtures ``deployment`` and ``run_workload``.

    def test_cold_decode(run_workload):
        run_workload("cold_decode")

``deployment`` is launched once per session, unless a running deployment is named by ``--pd-base-url``,
``--pd-prefill-url`` and ``--pd-decode-url``, or by ``PROXY_PORT``, ``PREFILL_PORT`` and ``DECODE_PORT`` in the
environment (ports on this host). ``BLOCK_SIZE``, if set, must be the block size that the servers report. ``--pd-args``
takes any other option of ``python -m harness``.

If the package is installed, every pytest session loads this module: it imports nothing else until a fixture is used.
"""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.held import HeldDeployment, Runnable
    from harness.verdict import Judgement

    RunWorkload = Callable[..., Judgement]

__all__ = ["deployment", "run_workload"]

_PORTS = (("--base-url", "PROXY_PORT"), ("--prefill-url", "PREFILL_PORT"), ("--decode-url", "DECODE_PORT"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that say where the deployment is."""
    group = parser.getgroup("pd-harness", "prefill/decode deployments")
    group.addoption("--pd-base-url", metavar="URL", help="the proxy of a running deployment")
    group.addoption("--pd-prefill-url", metavar="URL", action="append", default=[], help="a prefill server; repeatable")
    group.addoption("--pd-decode-url", metavar="URL", action="append", default=[], help="a decode server; repeatable")
    group.addoption("--pd-args", metavar="ARGS", default="", help="other options of python -m harness, in quotes")


@pytest.fixture(scope="session")
def deployment(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[HeldDeployment]":
    """The deployment under test. If the session launched it, it ends with the session."""
    from harness.pytest_plugin.held import holding  # noqa: PLC0415 - nothing is imported until a fixture is used

    argv = [*_where(pytestconfig, os.environ), *shlex.split(pytestconfig.getoption("--pd-args"))]
    with holding(argv, tmp_path_factory.mktemp("pd-harness")) as held:
        held.require_block_size(os.environ.get("BLOCK_SIZE"))
        yield held


@pytest.fixture
def run_workload(deployment: "HeldDeployment") -> "RunWorkload":
    """A function that runs a workload (a name, or a function of a setting) and asserts that its verdict is valid.

    The function returns the judgement. It skips the test if the deployment lacks something that the workload needs.
    With ``check=False`` it asserts nothing.
    """

    def run(what: "Runnable", *, check: bool = True) -> "Judgement":
        from harness.pytest_plugin.held import Lacking  # noqa: PLC0415 - as above
        from harness.reports.assertion import explain  # noqa: PLC0415 - as above
        from harness.verdict import Verdict  # noqa: PLC0415 - as above

        try:
            ran = deployment.run(what)
        except Lacking as lacking:
            pytest.skip(str(lacking))
        if check and ran.judgement.verdict is not Verdict.VALID:
            if ran.known_fault and ran.known_fault.excuses(ran.judgement, deployment.facts):
                pytest.xfail(ran.known_fault.text)
            pytest.fail(explain(ran.name, ran.judgement), pytrace=False)
        return ran.judgement

    return run


def _where(config: pytest.Config, environment: Mapping[str, str]) -> list[str]:
    """Flags that attach to the named deployment; empty if neither options nor environment name one."""
    named = [
        *(("--base-url", url) for url in filter(None, [config.getoption("--pd-base-url")])),
        *(("--prefill-url", url) for url in config.getoption("--pd-prefill-url")),
        *(("--decode-url", url) for url in config.getoption("--pd-decode-url")),
    ] or [(flag, f"http://127.0.0.1:{port}") for flag, name in _PORTS if (port := environment.get(name))]
    return [word for pair in named for word in pair]
