"""Who may import whom. CONTRIBUTING.md draws the same picture."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VOCABULARY = {"errors", "clock", "scenario", "facts", "verdict", "history", "redact", "memo", "observer"}

# A room may import itself, and what stands here.
ROOMS: dict[str, set[str]] = {
    "errors": {"redact"},
    "clock": set(),
    "memo": set(),
    "observer": set(),
    "scenario": set(),
    "facts": set(),
    "verdict": {"facts"},  # what a known fault concerns
    "history": {"scenario"},
    "redact": {"facts"},
    "engine_plugins": set(),
    "models": {"errors", "facts"},
    "proxy": {"errors", "facts", "redact"},
    "load": VOCABULARY,
    "observe": VOCABULARY,
    "loads": VOCABULARY,
    # Of deploy only what a target is: a preset becomes one.
    "catalogue": VOCABULARY | {"deploy.target"},
    "oracle": VOCABULARY,
    # Of observe only its pure half: how samples become counters.
    "verify": VOCABULARY | {"observe.counters", "observe.watched"},
    "checkers": VOCABULARY | {"oracle", "verify.judging", "observe.counters", "observe.watched"},
    "run": VOCABULARY | {"load", "catalogue", "observe", "verify", "checkers"},
    "store": VOCABULARY,
    "reports": VOCABULARY | {"load.latency", "store.redact", "catalogue.registry", "checkers", "verify.judging"},
    # Of load only how a request becomes a body: what curl sends is what the client sends.
    "shrink": VOCABULARY | {"checkers", "loads", "load.body", "run", "verify", "reports.text", "store.redact"},
    # What a deployment says of itself, looked at before anything is judged.
    "preflight": VOCABULARY | {"loads.demand", "observe", "proxy"},
    "deploy": VOCABULARY | {"proxy", "models", "observe", "sim", "preflight", "loads.demand"},
    # Not oracle, observe or checkers: the simulation is the other road to the same numbers.
    "sim": VOCABULARY | {"proxy"},
    # Whole runs in one process: like the composition root it knows all rooms but that.
    "selftest": VOCABULARY
    | {"sim", "run", "load", "loads", "observe", "checkers", "oracle", "reports", "store", "verify"},
}
COMPOSITION_ROOT = {"api", "cli", "pytest_plugin", "__main__", "__init__"}

ENGINE = {"vllm", "torch", "nixl", "transformers", "tokenizers"}
NETWORK = {"aiohttp", "uvloop", "socket", "http", "urllib", "asyncio", "subprocess"}
PURE = (
    "errors",
    "scenario",
    "facts",
    "verdict",
    "history",
    "redact",
    "memo",
    "oracle",
    "checkers",
    "verify",
    "catalogue",
    "loads",
)


def _modules(top: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(top.rglob("*.py")):
        yield ".".join(path.relative_to(top).with_suffix("").parts), path


def _imports(path: Path) -> Iterator[str]:
    """Absolute names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str:
    return module.partition(".")[0]


HARNESS = [(name, path) for name, path in _modules(ROOT / "harness") if _room(name) not in COMPOSITION_ROOT]


@pytest.mark.parametrize(("module", "path"), HARNESS, ids=[name for name, _ in HARNESS])
def test_a_room_imports_only_what_it_may(module: str, path: Path) -> None:
    room = _room(module)
    assert room in ROOMS, f"{module}: a new room; say in ROOMS what it may import"
    allowed = {room, *ROOMS[room]}
    for name in _imports(path):
        inside = name.removeprefix("harness.")
        if name == inside or name.partition(".")[0] != "harness":
            continue
        steps = {".".join(inside.split(".")[:n]) for n in (1, 2)}
        assert steps & allowed, f"{module} imports {name}"


@pytest.mark.parametrize(("module", "path"), HARNESS, ids=[name for name, _ in HARNESS])
def test_the_engine_is_imported_by_its_plugins_alone(module: str, path: Path) -> None:
    if _room(module) != "engine_plugins":
        assert not {_room(name) for name in _imports(path)} & ENGINE


@pytest.mark.parametrize(("module", "path"), HARNESS, ids=[name for name, _ in HARNESS])
def test_pure_rooms_do_no_input_or_output(module: str, path: Path) -> None:
    if _room(module) in PURE:
        assert not {_room(name) for name in _imports(path)} & NETWORK


RUN = list(_modules(ROOT / "harness" / "run"))


@pytest.mark.parametrize(("module", "path"), RUN, ids=[name for name, _ in RUN])
def test_carrying_out_scenarios_opens_no_connection_stores_nothing_and_reads_no_flags(module: str, path: Path) -> None:
    assert not {_room(name) for name in _imports(path)} & {"aiohttp", "argparse", "rich", "sys"}, module
    assert "print(" not in path.read_text()


@pytest.mark.parametrize(("module", "path"), list(_modules(ROOT / "harness" / "pytest_plugin")))
def test_the_pytest_plugin_knows_of_the_command_line_only_its_options(module: str, path: Path) -> None:
    of_cli = {name for name in _imports(path) if name.startswith("harness.cli")}
    assert of_cli <= {"harness.cli.options", "harness.cli.options.Options", "harness.cli.options.parse"}, module


def test_the_api_knows_nothing_of_the_command_line() -> None:
    for module, path in _modules(ROOT / "harness" / "api"):
        assert not [name for name in _imports(path) if name.startswith("harness.cli")], module


def test_outputs_are_judged_without_knowing_what_was_to_be_asked() -> None:
    """The plan of verification calls the judging, so the judging must not import the plan."""
    for module, path in _modules(ROOT / "harness" / "verify" / "judging"):
        assert not [name for name in _imports(path) if name.startswith("harness.verify.asking")], module


@pytest.mark.parametrize(("module", "path"), list(_modules(ROOT / "workloads")))
def test_workloads_know_the_vocabulary_and_the_catalogue_alone(module: str, path: Path) -> None:
    for name in _imports(path):
        if name.startswith("harness."):
            assert name.split(".")[1] in {"catalogue", "scenario", "facts", "errors", "history", "verdict"}, (
                f"workloads.{module} imports {name}"
            )


@pytest.mark.parametrize(("module", "path"), list(_modules(ROOT / "harness")))
def test_the_harness_imports_no_workload(module: str, path: Path) -> None:
    """Workloads depend on the harness, which finds them by name (harness/catalogue/choice.py)."""
    assert not [name for name in _imports(path) if _room(name) in {"workloads", "bench", "tests"}], module


def test_every_room_that_is_named_exists() -> None:
    present = {_room(name) for name, _ in _modules(ROOT / "harness")}
    assert set(ROOMS) <= present
