"""Parameters that shape the answer: whatever they are, it must be the one that the prompt has without transfer."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.facts import Role
from harness.scenario import Phase
from harness.verdict import FaultSign, KnownFault

_STOPS = ("e", "7", "o")
"""Strings that most answers come to within a few tokens, whatever the model."""

_COLD = 0.01
"""A runner-up that is behind by a tenth of a nat is drawn once in 20,000 times."""


def _lengths(build: Builder) -> tuple[int, ...]:
    return (build.block - 1, build.block, 2 * build.block + 3)


@workload(family="sampling")
def one_output_token(build: Builder) -> Iterator[Phase]:
    """Answers of one token.

    Hunts requests that end in the step in which their KV arrives: blocks are released while a store or a notification
    is still due.
    """
    yield together("ask", [build.ask(length, max_tokens=1) for length in _lengths(build)])


@workload(family="sampling")
def long_answer(build: Builder) -> Iterator[Phase]:
    """Answers that fill more blocks than their prompts.

    Hunts decode's first block of its own, which begins in the middle of the transferred tail.
    """
    lengths = (3, build.block - 2, build.block)
    yield together("ask", [build.ask(length, max_tokens=2 * build.block + 5, ignore_eos=True) for length in lengths])


@workload(family="sampling")
def min_tokens(build: Builder) -> Iterator[Phase]:
    """Answers that must have so many tokens before they may end.

    Hunts proxies and prefill servers that refuse a minimum above their one token, or drop it for decode.
    """
    yield together("ask", [build.ask(length, max_tokens=12, min_tokens=10, stop=_STOPS) for length in _lengths(build)])


@workload(family="sampling")
def stop_strings(build: Builder) -> Iterator[Phase]:
    """Answers that end at a string, streamed and not.

    Hunts proxies that drop fields on the way to decode: the answer then goes on.
    """
    requests = [
        build.ask(length, max_tokens=24, stop=_STOPS, stream=stream)
        for length in _lengths(build)
        for stream in (True, False)
    ]
    yield together("ask", requests)


@workload(family="sampling")
def output_logprobs(build: Builder) -> Iterator[Phase]:
    """Answers with no, with one and with five log-probabilities per token.

    Hunts answers that change with what is asked about them, and one-token prefills that refuse the field.
    """
    yield together("ask", [build.ask(2 * build.block + 3, logprobs=number) for number in (None, 1, 5)])


@workload(family="sampling", needs=Needs(own_proxy=True))
def prompt_logprobs(build: Builder) -> Iterator[Phase]:
    """Prompts whose own log-probabilities are asked: no cache and no connector may be read for them.

    Hunts a decode server that waits for KV it will not use, and a prefill server that is never told to release it.
    """
    prompt = build.ids(2 * build.block + 3)
    yield together("cold", [build.ask(prompt, prompt_logprobs=0, stream=False)])
    yield together("again", [build.ask(prompt, prompt_logprobs=1, stream=False), build.ask(prompt)])


@workload(family="sampling", needs=Needs(own_proxy=True))
def echo(build: Builder) -> Iterator[Phase]:
    """Answers that repeat their prompt, with log-probabilities (which compute it anew) and without, streamed and not.

    Hunts echoes of what prefill was given in place of what the client sent.
    """
    requests = [
        build.ask(build.block + 3, echo=True, logprobs=logprobs, stream=stream)
        for logprobs in (None, 2)
        for stream in (True, False)
    ]
    yield together("ask", requests)


@workload(
    family="sampling",
    needs=Needs(own_proxy=True),
    known_fault=KnownFault(
        signs=(FaultSign("failed_transfers", ("nixl_after_expiry",), Role.PREFILL, most_per_request=2),),
        versions=("0.32.0",),
        devices=("cpu", "sim"),
        evidence="each of three choices pulls and notifies, and prefill counts two of the three notifications as after "
        "expiry (6 for 3 requests); that it gives its blocks back at the first is inferred; outputs were right",
    ),
)
def several_choices(build: Builder) -> Iterator[Phase]:
    """Three answers to each prompt (n = 3), at a temperature that all but makes them greedy.

    Hunts single-use transfers that are used three times: every choice pulls the same blocks, and the first one's
    notification allows prefill to give them to others. (vLLM refuses n above 1 at temperature 0.)
    """
    yield together("ask", [build.ask(length, n=3, temperature=_COLD, seed=7) for length in _lengths(build)])
