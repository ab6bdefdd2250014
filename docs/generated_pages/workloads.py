"""A page for each family of workloads, from their docstrings and from what they need."""

from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module

from generated_pages.markup import doc, field_docs, markdown
from harness.catalogue.choice import OURS, catalogue, ready_pairs
from harness.catalogue.needs import Needs
from harness.catalogue.presets import PRESETS
from harness.catalogue.registry import Workload


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of each page."""
    entries = [one for one in (*catalogue(), *ready_pairs()) if one.write.__module__.partition(".")[0] == OURS]
    for family in dict.fromkeys(one.family for one in entries):
        yield f"workloads/{family}.md", _page(family, [one for one in entries if one.family == family])


def _page(family: str, entries: list[Workload]) -> str:
    summary, rest = doc(import_module(f"{OURS}.{family}"))
    command = f"```sh\npython -m harness --workload {family} --all-deployments\n```"
    return "\n\n".join(filter(None, (f"# {family}", summary, rest, command, *map(_section, entries)))) + "\n"


def _section(entry: Workload) -> str:
    facts = "\n".join(f"- {fact}" for fact in _facts(entry))
    return "\n\n".join((f"## {entry.name}", markdown(entry.summary), markdown(entry.hunts), facts))


def _facts(entry: Workload) -> Iterator[str]:
    needs = list(_needs(entry.needs))
    yield f"Needs: {'; '.join(needs)}." if needs else "Needs: nothing in particular."
    yield f"Deployment: `{entry.home}` ({PRESETS[entry.home].summary})."
    if entry.faults:
        yield f"Faults: {', '.join(f'`--fault {one}`' for one in entry.faults)}."
    if entry.provokes and entry.provokes.counters:
        counters = ", ".join(f"`{one}`" for one in entry.provokes.counters)
        yield f"Must have happened, or the case was not tested: growth of {counters}."
    if entry.provokes and entry.provokes.waits:
        yield f"Must have happened: a request waited {entry.provokes.waits:g} s for decode."
    if entry.alone:
        yield "May end a server: it runs on a deployment of its own, launched for it."
    if entry.known_fault:
        yield f"Known fault: {markdown(entry.known_fault.text)}"


def _needs(needs: Needs) -> Iterator[str]:
    said = field_docs(Needs)
    if needs.transfers:
        yield "KV transfer"
    for one in fields(needs):
        value = getattr(needs, one.name)
        if one.name != "transfers" and value != one.default:
            text = said.get(one.name, one.name.replace("_", " ")).rstrip(".")
            yield f"{text[0].lower()}{text[1:]}: {_shown(value)}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
