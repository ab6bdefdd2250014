"""The modules that each room may import, as in CONTRIBUTING.md."""

import ast
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VOCABULARY = {"errors", "clock", "deferred", "open_files", "scenario", "facts", "verdict", "history", "redact", "memo"}
VOCABULARY |= {"collector", "observer", "cancelled"}

# The rooms, or single modules of rooms, that a room may import besides itself.
ROOMS: dict[str, set[str]] = {
    "errors": {"redact"},
    "clock": set(),
    "cancelled": set(),
    "collector": set(),
    "memo": set(),
    "observer": {"history"},
    "deferred": set(),
    "open_files": set(),
    "scenario": {"deferred"},
    "facts": set(),
    "verdict": {"facts"},
    "history": {"scenario", "deferred"},
    "redact": {"facts"},
    "engine_plugins": set(),
    "models": {"errors", "facts"},
    "proxy": {"errors", "facts", "open_files", "redact"},
    "load": VOCABULARY,
    "observe": VOCABULARY,
    "loads": VOCABULARY,
    # Of deploy only the target, which is built from a preset.
    "catalogue": VOCABULARY | {"deploy.target"},
    "oracle": VOCABULARY,
    # Of observe only the pure modules, which turn samples into counters.
    "verify": VOCABULARY | {"observe.growth", "observe.watched"},
    "checkers": VOCABULARY | {"oracle", "verify.judging", "observe.counters", "observe.growth", "observe.watched"},
    "run": VOCABULARY | {"load", "catalogue", "observe", "verify", "checkers"},
    # Of store only the lines of a journal, which workers write.
    "fleet": VOCABULARY | {"load", "run", "store.written"},
    # Of run only how a phase's requests are sent, beside which faults are caused.
    "faults": VOCABULARY | {"run.runner"},
    "store": VOCABULARY,
    "reports": VOCABULARY
    | {
        "load.goodput",
        "load.latency",
        "store.redact",
        "store.atomic",
        "catalogue.registry",
        "checkers",
        "verify.judging",
    }
    # Of observe only how samples are turned into counters.
    | {"observe.counters"},
    # A process of its own, which reads the journal of a run that goes on.
    "beside": VOCABULARY | {"store", "checkers"},
    # Of reports the format of numbers and tables.
    "compare": VOCABULARY | {"verify.judging", "reports.text", "reports.screen"},
    "sweep": VOCABULARY | {"reports"},
    # Of load only the bodies of requests: curl must send the same body as the client.
    "shrink": VOCABULARY | {"checkers", "loads", "load.body", "run", "verify", "reports.text", "store.redact"},
    "preflight": VOCABULARY | {"loads.demand", "observe", "proxy"},
    "deploy": VOCABULARY | {"proxy", "models", "observe", "sim", "preflight", "loads.demand"},
    # Neither oracle nor observe nor checkers: the simulation finds the same numbers independently.
    "sim": VOCABULARY | {"proxy"},
    # Whole runs in one process, which need nearly all rooms.
    "selftest": VOCABULARY
    | {"sim", "run", "load", "loads", "observe", "checkers", "oracle", "reports", "store", "verify"},
}
COMPOSITION_ROOT = {"api", "cli", "pytest_plugin", "__main__", "__init__"}

ENGINE = {"vllm", "torch", "nixl", "transformers", "tokenizers"}
NETWORK = {"aiohttp", "uvloop", "socket", "http", "urllib", "asyncio", "subprocess"}
PURE = (
    "errors",
    "deferred",
    "scenario",
    "facts",
    "verdict",
    "history",
    "redact",
    "memo",
    "collector",
    "oracle",
    "checkers",
    "verify",
    "catalogue",
    "loads",
    "sweep",
    "compare",
)


def _modules(top: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(top.rglob("*.py")):
        yield ".".join(path.relative_to(top).with_suffix("").parts), path


def _imports(path: Path) -> Iterator[str]:
    """Absolute names that a module imports anywhere in its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str:
    return module.partition(".")[0]


HARNESS = [(name, path) for name, path in _modules(ROOT / "harness") if _room(name) not in COMPOSITION_ROOT]


def test_a_room_imports_only_what_it_may() -> None:
    forbidden = []
    for module, path in HARNESS:
        room = _room(module)
        assert room in ROOMS, f"{module} is in a new room: list in ROOMS what this room may import"
        allowed = {room, *ROOMS[room]}
        for name in _imports(path):
            top, _, inside = name.partition(".")
            steps = {".".join(inside.split(".")[:n]) for n in (1, 2)}
            if top == "harness" and inside and not steps & allowed:
                forbidden.append(f"{module} imports {name}")
    assert forbidden == []


def _importing(modules: Iterable[tuple[str, Path]], packages: Collection[str]) -> list[str]:
    """The modules that import one of the packages."""
    return [module for module, path in modules if {_room(name) for name in _imports(path)} & set(packages)]


def test_the_engine_is_imported_by_its_plugins_alone() -> None:
    assert _importing([one for one in HARNESS if _room(one[0]) != "engine_plugins"], ENGINE) == []


def test_pure_rooms_do_no_input_or_output() -> None:
    assert _importing([one for one in HARNESS if _room(one[0]) in PURE], NETWORK) == []


def test_carrying_out_scenarios_opens_no_connection_stores_nothing_and_reads_no_flags() -> None:
    run = list(_modules(ROOT / "harness" / "run"))
    assert _importing(run, {"aiohttp", "argparse", "rich", "sys"}) == []
    assert [module for module, path in run if "print(" in path.read_text()] == []


def test_the_pytest_plugin_knows_of_the_command_line_only_its_options() -> None:
    for module, path in _modules(ROOT / "harness" / "pytest_plugin"):
        of_cli = {name for name in _imports(path) if name.startswith("harness.cli")}
        assert of_cli <= {"harness.cli.options", "harness.cli.options.Options", "harness.cli.options.parse"}, module


def test_the_api_knows_nothing_of_the_command_line() -> None:
    for module, path in _modules(ROOT / "harness" / "api"):
        assert not [name for name in _imports(path) if name.startswith("harness.cli")], module


def test_judging_outputs_does_not_depend_on_the_plan_of_verification() -> None:
    """The plan imports the judging, so the judging must not import the plan."""
    for module, path in _modules(ROOT / "harness" / "verify" / "judging"):
        assert not [name for name in _imports(path) if name.startswith("harness.verify.asking")], module


def test_workloads_know_the_vocabulary_and_the_catalogue_alone() -> None:
    known = {"catalogue", "scenario", "facts", "errors", "history", "verdict"}
    for module, path in _modules(ROOT / "workloads"):
        rooms = {name.split(".")[1] for name in _imports(path) if name.startswith("harness.")}
        assert rooms <= known, module


def test_the_harness_imports_no_workload() -> None:
    """Workloads depend on the harness, which finds them by name (harness/catalogue/choice.py)."""
    assert _importing(_modules(ROOT / "harness"), {"workloads", "bench", "tests"}) == []


def _project() -> dict[str, set[str]]:
    """Every module of the project by its full name, with the modules of the project that it imports."""
    files = {
        f"{top}.{name}".removesuffix(".__init__"): path
        for top in ("harness", "workloads", "bench")
        for name, path in _modules(ROOT / top)
    }
    return {name: {found for found in _imports(path) if found in files} - {name} for name, path in files.items()}


def _circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other along the arrows."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for after in arrows[left.pop()] - seen:
                seen.add(after)
                left.append(after)
        return seen

    reach = {node: reached(node) for node in arrows}
    circles = [{other for other in reach[node] if node in reach[other]} for node in arrows if node in reach[node]]
    return [circle for number, circle in enumerate(circles) if circle not in circles[:number]]


def test_no_files_import_each_other_in_a_circle() -> None:
    """A package's ``__init__``, which exports the names of its files, forms no circle with them."""
    arrows = _project()
    packages = {name for name in arrows if any(other.startswith(f"{name}.") for other in arrows)}
    inner = {name: {found for found in found_ if found not in packages} for name, found_ in arrows.items()}
    assert _circles(inner) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    def room(module: str) -> str:
        return ".".join(module.split(".")[:2]) if module.startswith("harness.") else module.partition(".")[0]

    arrows: dict[str, set[str]] = {}
    for module, imported in _project().items():
        if module != "harness":
            found = {room(name) for name in imported if name != "harness"} - {room(module)}
            arrows.setdefault(room(module), set()).update(found)
    assert _circles(arrows) == []


def test_a_circle_is_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]


def test_every_room_in_the_table_exists() -> None:
    present = {_room(name) for name, _ in _modules(ROOT / "harness")}
    assert set(ROOMS) <= present


# --- names are not taken apart ---

DISPLAYED = {"phase", "request_id", "subject", "text", "summary", "cause", "why_unknown", "unsettled_because"}
"""Attributes that are only shown to people. Other fields have their meaning: ``Request.purpose``, ``Finding.kind``,
``Finding.request``, ``Ended.ending``."""
NAMED = {"phase", "server", "scenario"}
"""Objects whose name (their ``name``, or the object itself) is only displayed, and compared as a whole."""
PARTS_OF_A_STRING = {"startswith", "endswith", "partition", "rpartition", "split", "rsplit", "find", "rfind", "count"}
PARTS_OF_A_STRING |= {"removeprefix", "removesuffix", "replace", "match", "search", "fullmatch", "findall", "finditer"}

EXCEPTIONS = {
    # Earlier versions recorded only names and texts.
    ("harness/store/earlier.py", "phase.startswith('confirmation')"),
    ("harness/store/earlier.py", "phase.endswith('-tier')"),
    # A stop string is searched in an answer, which is not a text of the harness.
    ("harness/sim/engine.py", "stop in sequence.text"),
    ("harness/verify/judging/answer_end.py", "stop in choice.text"),
    # The text of an answer that ended early is compared with as much of its reference's.
    ("harness/verify/judging/partial.py", "choice.text[:len(partial.text)]"),
    # A sentence that is on the screen already is not printed again; nothing is concluded from it.
    ("harness/reports/assertion.py", "f'{one.subject}: {one.text}' not in check.summary"),
    ("harness/reports/reasons.py", "summary.replace(why, f'for the same reason as {shown_by[why]}')"),
    ("harness/reports/reasons.py", "text not in summary"),
    ("harness/reports/reasons.py", "subject not in summary"),
}


def _is_displayed(node: ast.expr) -> bool:
    """Whether the expression is a name or a text that is only displayed: ``finding.text``, ``str(phase)``."""
    match node:
        case ast.Attribute(value=value, attr="name"):
            return bool(NAMED & {ast.unparse(value).rpartition(".")[2]})
        case ast.Attribute(attr=name):
            return name in DISPLAYED | NAMED
        case ast.Name(id=name):
            return name in (DISPLAYED | NAMED) - {"text", "cause"}
        case ast.Call(func=ast.Name(id="str"), args=[inner]) | ast.Call(func=ast.Attribute(value=inner), args=[]):
            return _is_displayed(inner)
        case ast.JoinedStr(values=values):
            return any(_is_displayed(part.value) for part in values if isinstance(part, ast.FormattedValue))
        case _:
            return False


def _taken_apart(path: Path) -> Iterator[str]:
    """Expressions of a module that take a part of a displayed name or text, or search in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method), args=args) if method in PARTS_OF_A_STRING:
                found = any(map(_is_displayed, (value, *args)))
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[container]):
                found = _is_displayed(container)
            case ast.Subscript(value=value, slice=ast.Slice()):
                found = _is_displayed(value)
            case _:
                found = False
        if found:
            yield ast.unparse(node)


def _sleeps(path: Path) -> Iterator[str]:
    """Calls of ``asyncio.sleep`` and ``time.sleep`` in a module, also in the source of a process that it starts."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="asyncio" | "time"), attr="sleep"):
                yield ast.unparse(node)
            case ast.ImportFrom(module="asyncio" | "time", names=names):
                yield from (name.name for name in names if name.name == "sleep")
            case ast.Constant(value=str(text)) if "asyncio" + ".sleep(" in text or "time" + ".sleep(" in text:
                yield text


def test_no_test_sleeps() -> None:
    """Tests poll for evidence (tests/support/polling.py), set a clock by hand, or wait for an event."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert [f"{path.relative_to(ROOT)}: {what}" for path in tests for what in _sleeps(path)] == []


SLEEP = ".sleep(1)"


@pytest.mark.parametrize(
    "code", [f"await asyncio{SLEEP}", "from time import sleep", f"run([python, '-c', 'import time; time{SLEEP}'])"]
)
def test_a_sleep_is_found(code: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(code)
    assert list(_sleeps(module))


MODULES = [path for room in ("harness", "workloads", "bench") for path in sorted((ROOT / room).rglob("*.py"))]


def test_no_meaning_is_taken_from_parts_of_names_and_texts() -> None:
    """Code reads meanings from fields. ``EXCEPTIONS`` lists the exceptions with their reasons."""
    found = {(str(path.relative_to(ROOT)), what) for path in MODULES for what in _taken_apart(path)}
    assert found == EXCEPTIONS


def test_what_a_request_of_the_load_is_is_defined_once() -> None:
    """``Request.of_load`` tells it. What is sent beside a load marks its own requests."""
    named = ("Purpose.LOAD", "Purpose.BACKGROUND")
    using = {str(path.relative_to(ROOT)) for path in MODULES if any(name in path.read_text() for name in named)}
    assert using == {"harness/scenario.py", "harness/catalogue/background.py", "harness/faults/churn.py"}


@pytest.mark.parametrize(
    "code",
    [
        "one.phase.startswith('load')",
        "sent.phase.removeprefix('x')",
        "sent.request.request_id.partition('-')",
        "'-probe-' in request_id",
        "'leaked' in finding.text",
        "re.search('wrong', check.summary)",
        "PATTERN.match(finding.subject)",
        "one.server.startswith(str(role))",
        "re.fullmatch(f'{role}.*', part.server)",
        "server.name.split('-')",
        "operation.request.request_id[5:]",
        "ended.cause.lower().startswith('cut')",
    ],
)
def test_a_name_that_is_taken_apart_is_found(code: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(code)
    assert list(_taken_apart(module)) == [ast.unparse(ast.parse(code))]


@pytest.mark.parametrize("code", ["one.phase in phases", "finding.request == request_id", "answer.split()"])
def test_a_name_that_is_compared_as_a_whole_is_not_found(code: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(code)
    assert not list(_taken_apart(module))
