"""Puts any workload under load: other requests are kept in flight beside the workload's own."""

from dataclasses import replace

from harness.catalogue.builder import Builder
from harness.catalogue.setting import Setting
from harness.scenario import Phase, Request, Scenario

_SUPPLY = 8
"""Background requests per request in flight: enough for a phase that lasts as long as eight answers."""


def beside_load(scenario: Scenario, setting: Setting, in_flight: int) -> Scenario:
    """The scenario with ``in_flight`` background requests beside each of its counted phases.

    Background requests are operations of the phase: their tokens and bytes are predicted and their answers verified.
    Their prompts, up to four blocks long, have a salt and first tokens of their own.
    """
    build = Builder(f"{scenario.name}-background", setting)
    return replace(scenario, phases=tuple(_beside(phase, build, in_flight) for phase in scenario.phases))


def _beside(phase: Phase, build: Builder, in_flight: int) -> Phase:
    if not phase.counted:
        return phase
    background = tuple(_request(build, number) for number in range(in_flight * _SUPPLY))
    return replace(phase, background=background, background_concurrency=in_flight)


def _request(build: Builder, number: int) -> Request:
    return build.ask(1 + number * 7 % (4 * build.block), max_tokens=4 + number % 13)
