"""The pages of the docs: complete, built strictly, and made from what there is."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from doc_commands import LANGUAGES, ROOT, blocks, is_command, pages, tokens
from generated_pages import command_line, entries, faults, readme, workloads
from generated_pages.markup import field_docs, markdown, table

import harness
from harness.catalogue.choice import catalogue, ready_pairs
from harness.checkers.compose import CHECKERS
from harness.cli.flags import make_parser
from harness.faults import KINDS
from harness.history import Tolerated
from harness.reports.html.proves import PROVES
from harness.verdict import FindingKind

PAGES = pages()
CHECKS = PAGES["docs/checks.md"]
PARTS = ("**Proves.**", "**Cannot show.**", "**Not valid when**")
VALUES = r"…|^vLLM|prefill|decode-\d|GET /metrics|-0 and|401"
"""What the messages under troubleshooting have in place of values."""
INSIDE = {"", "any"}
"""Names of checks that no report shows: of nothing, and of a JUnit file without checks."""
OF_VLLM = {
    *("--kv-transfer-config", "--generation-config", "--enable-prompt-tokens-details", "--override-generation-config"),
    *("--gpu-memory-utilization", "--max-model-len", "--kv-role", "--var-x", "--var-y"),
}
"""Flags of vLLM that the pages name."""


def named_checks() -> Iterator[str]:
    """The first argument of every call of ``Check`` or ``counter_check`` that is a literal, in the harness's source."""
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            first = node.args[0]
            if node.func.id in {"Check", "counter_check"} and isinstance(first, ast.Constant):
                yield str(first.value)


@cache
def said_by_the_harness() -> str:
    """All texts of the harness's source, a line each; a value in a text is an ellipsis."""
    return "\n".join(
        "".join(one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
        if isinstance(node, ast.JoinedStr)
        else node.value
        for path in (ROOT / "harness").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    )


def sections(text: str) -> dict[str, str]:
    return {one.partition("\n")[0]: one for one in text.split("\n## ")[1:]}


def test_every_check_that_a_report_may_show_is_explained_and_no_other() -> None:
    names = {*named_checks(), *(checker.__name__ for checker, _ in CHECKERS)} - INSIDE
    assert {"salts", "faults", "processes", "provoked"} <= names
    assert set(sections(CHECKS)) == names
    # The check of a deployment that did not start never passes, so that it proves nothing on the page of a run.
    assert set(PROVES) == names - {"deployment"}


@pytest.mark.parametrize("name", sorted(sections(CHECKS)))
def test_each_check_says_what_it_proves_what_it_cannot_and_when_it_is_not_valid(name: str) -> None:
    places = [sections(CHECKS)[name].find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


def quoted_messages() -> list[str]:
    """The messages in the first column of the table of usage errors."""
    table_rows = sections(PAGES["docs/troubleshooting.md"])["Exit code 2: something to correct"]
    return [line.split("`")[1] for line in table_rows.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("message", quoted_messages())
def test_each_message_under_troubleshooting_is_one_of_the_harness(message: str) -> None:
    said = said_by_the_harness()
    parts = [part.strip(" :") for part in re.split(VALUES, message)]
    assert any(parts)
    assert [part for part in parts if part not in said] == []


def test_every_kind_of_finding_is_explained() -> None:
    headings = {title.lower().replace(" ", "_") for title in sections(PAGES["docs/findings.md"])}
    assert {kind.value for kind in FindingKind} <= headings


def test_every_fault_has_a_page_with_each_of_its_options() -> None:
    found = dict(faults.pages())
    assert set(found) == {f"faults/{kind}.md" for kind in KINDS}
    assert "| `grace` | `30` |" in found["faults/drain.md"]
    assert "| `server` | `prefill-0` |" in found["faults/kill.md"]
    assert "*restart*" in found["faults/kill.md"]
    assert "*restart*" not in found["faults/pause.md"]


def test_every_workload_has_a_section_on_its_family_s_page() -> None:
    found = dict(workloads.pages())
    ours = [one for one in (*catalogue(), *ready_pairs()) if one.write.__module__.startswith("workloads.")]
    assert ours
    for one in ours:
        assert f"\n## {one.name}\n\n{markdown(one.summary)}" in found[f"workloads/{one.family}.md"]


def test_every_flag_of_every_command_is_in_the_reference() -> None:
    ((path, text),) = command_line.pages()
    assert path == "command-line.md"
    for argv in ("run", "serve", "check", "doctor", "shrink", "selftest"):
        shown = make_parser()._subparsers._group_actions[0].choices[argv].format_help()  # type: ignore[union-attr,index]
        part = sections(text)[argv]
        assert set(re.findall(r"(?<!\S)(--[a-z-]+)", shown)) - {"--help"} <= set(re.findall(r"--[a-z-]+", part))


def test_every_entry_of_the_history_is_explained_with_its_fields() -> None:
    ((_, text),) = entries.pages()
    assert "## run_started" in text
    assert "| `wall` | Calendar time of `at == 0`: seconds since 1970." in text


def test_the_keys_of_a_result_are_explained() -> None:
    with harness.simulate(connector="nixl", num_warmups=1) as deployment:
        report = deployment.run(harness.RandomLoad(num_prompts=8, concurrency=4, output_len=4), verify="sample:2")
    text = PAGES["docs/store.md"]
    named = {one for token in tokens(text) if token.type == "code_inline" for one in [token.content]}
    statistic = re.compile(r"(?:mean|median|std|p\d+)_(?:ttft|tpot|itl|e2el)(?:_from_send)?_ms")
    missing = {key for key in report.result if key not in named and not statistic.fullmatch(key)}
    assert missing <= {"endpoint_type", "backend", "tokenizer_id"}


def test_every_flag_that_a_page_names_exists() -> None:
    known = set(OF_VLLM)
    for folder in ("harness", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            known |= set(re.findall(r'["\s](--[a-z][a-z0-9-]+)', path.read_text()))
    code = {"fence", "code_inline"}
    for page, text in PAGES.items():
        shown = " ".join(token.content for token in tokens(text) if token.type in code)
        assert set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", shown)) <= known, page


@pytest.mark.parametrize("page", sorted(PAGES))
def test_code_is_marked_and_what_is_to_be_typed_is_marked_as_such(page: str) -> None:
    indented = [token.content for token in tokens(PAGES[page]) if token.type == "code_block"]
    marked = {token.info.strip() for token in tokens(PAGES[page]) if token.type == "fence"}
    assert marked <= LANGUAGES
    plain = [*blocks(PAGES[page], "text"), *indented]
    assert not [line for block in plain for line in block.splitlines() if is_command(line)]


@pytest.mark.parametrize("page", sorted(page for page, text in PAGES.items() if any(blocks(text, "python"))))
def test_python_compiles(page: str) -> None:
    for block in blocks(PAGES[page], "python"):
        compile(block, page, "exec")


def test_parts_of_the_readme_stand_on_the_pages_with_their_links() -> None:
    found = dict(readme.pages())
    assert "](checks.md)" in found["start.md"]
    assert "from README.md" not in found["start.md"]
    assert "| 4 | the harness itself failed" in found["start.md"]
    with pytest.raises(ValueError, match="no section 'Nonsense'"):
        readme.part("# x\n\n## y\n\ntext\n", "Nonsense")


def test_links_of_the_readme_lead_somewhere() -> None:
    made = {f"docs/{path}" for path in dict(faults.pages())}
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGES["README.md"]):
        assert (ROOT / target).is_file() or target in made, target


def test_markup_of_docstrings() -> None:
    assert markdown("See :class:`~harness.x.Y` and ``z``.") == "See `harness.x.Y` and `z`."
    assert markdown("First.\n\nRule 1. a\n  b\nRule 2: c") == "First.\n\n1. A b\n2. C"
    assert field_docs(Tolerated)["RESTART"].startswith("The target's counters begin again")
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.slow
def test_the_pages_are_built_strictly_and_fetch_nothing(tmp_path: Path) -> None:
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stdout + done.stderr
    built = list((tmp_path / "site").rglob("*.html"))
    assert len(built) > len(PAGES)
    for path in built:
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)', path.read_text())
        assert not fetched, path
