"""Conversations: each turn continues the previous answer.

A later turn's request contains only its new message and names the turn that it continues: the runner prepends that
turn's prompt and answer, which is not known before (``Request.continues``).
"""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Message, Phase, Request

_TURNS, _CONVERSATIONS = 4, 3


@workload(family="chat", needs=Needs(prefix_caching=True))
def chat_turns(build: Builder) -> Iterator[Phase]:
    """Three parallel conversations of four turns: each turn finds the previous turns in decode's prefix cache.

    Hunts wrong KV of generated tokens: decode caches the blocks of its answers, the next turn hits them, and they must
    agree with what prefill computes for the same tokens.
    """
    turns = [build.ask((build.user(build.block + 3),), max_tokens=12) for _ in range(_CONVERSATIONS)]
    yield together("turn 1", turns)
    for number in range(2, _TURNS + 1):
        turns = [build.ask((build.user(9),), continues=turn, max_tokens=12) for turn in turns]
        yield together(f"turn {number}", turns)


@workload(family="chat", needs=Needs(prefix_caching=True))
def continued_tokens(build: Builder) -> Iterator[Phase]:
    """Token-id prompts that continue earlier answers three times; prompt and answer always fill whole blocks.

    Hunts errors in the block that holds the end of a prompt and the beginning of its answer.
    """
    turns: list[Request] = [build.ask(build.block - 4, max_tokens=12), build.ask(2 * build.block - 12, max_tokens=12)]
    yield together("first", turns)
    for number in range(3):
        turns = [build.ask(build.more(build.block - 12), continues=turn, max_tokens=12) for turn in turns]
        yield together(f"continued {number + 1}", turns)


@workload(family="chat", needs=Needs(prefix_caching=True))
def chat_system_prompt(build: Builder) -> Iterator[Phase]:
    """Eight concurrent users under one system prompt, which an earlier request has put into the caches.

    Hunts the bug of shared_blocks, in prompts rendered by the chat template.
    """
    system = Message("system", build.words(2 * build.block))
    yield together("first", [build.ask((system, build.user(5)))])
    yield together("others", [build.ask((system, build.user(5 + 3 * number))) for number in range(8)])
