"""Conversations: each turn goes on from the answer before it.

The later prompts are not literals, since nobody knows an answer before it is given: they name the turn that they
continue, and the runner puts its prompt and answer before them (``Request.continues``).
"""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Message, Phase, Request

_TURNS, _CONVERSATIONS = 4, 3


@workload(family="chat", needs=Needs(prefix_caching=True))
def chat_turns(build: Builder) -> Iterator[Phase]:
    """Three conversations of four turns each, side by side: every turn finds the blocks of the last.

    Hunts decode's own blocks: what it generated is cached, hit by the next turn, and must agree with what prefill
    computes of the same tokens.
    """
    turns = [build.ask((build.user(build.block + 3),), max_tokens=12) for _ in range(_CONVERSATIONS)]
    yield together("turn 1", turns)
    for number in range(2, _TURNS + 1):
        turns = [build.ask((build.user(9),), continues=turn, max_tokens=12) for turn in turns]
        yield together(f"turn {number}", turns)


@workload(family="chat", needs=Needs(prefix_caching=True))
def continued_tokens(build: Builder) -> Iterator[Phase]:
    """Answers continued as token ids, three times: prompt and answer together fill whole blocks each time.

    Hunts the block that holds the end of a prompt and the beginning of its answer.
    """
    turns: list[Request] = [build.ask(build.block - 4, max_tokens=12), build.ask(2 * build.block - 12, max_tokens=12)]
    yield together("first", turns)
    for number in range(3):
        turns = [build.ask(build.more(build.block - 12), continues=turn, max_tokens=12) for turn in turns]
        yield together(f"continued {number + 1}", turns)


@workload(family="chat", needs=Needs(prefix_caching=True))
def chat_system_prompt(build: Builder) -> Iterator[Phase]:
    """Eight users at once under one system prompt, which one user had before them.

    Hunts what shared_blocks hunts, by way of the chat template.
    """
    system = Message("system", build.words(2 * build.block))
    yield together("first", [build.ask((system, build.user(5)))])
    yield together("others", [build.ask((system, build.user(5 + 3 * number))) for number in range(8)])
