"""Any workload inside load: other requests are kept in flight beside it, unlike any of its own."""

from dataclasses import replace

from harness.catalogue.builder import Builder
from harness.catalogue.setting import Setting
from harness.scenario import Phase, Request, Scenario

_SUPPLY = 8
"""Requests for each that is to be in flight: enough for a phase that lasts eight answers."""


def beside_load(scenario: Scenario, setting: Setting, in_flight: int) -> Scenario:
    """The scenario with ``in_flight`` requests beside each of its counted phases.

    They are operations of the phase, so that their tokens and bytes are predicted with the phase's own, and their
    answers are verified as its own are. Their prompts carry a salt of their own and open with tokens of their own, up
    to four blocks long.
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
