"""Sampling parameters: with any of them, the answer must be the same as without KV transfer."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.facts import Role
from harness.scenario import Phase
from harness.verdict import FaultSign, KnownFault

_STOPS = ("e", "7", "o")
"""Strings that occur within the first few tokens of most answers, whatever the model."""

_NEARLY_GREEDY = 0.01
"""A temperature at which a runner-up that is a tenth of a nat behind is drawn once in 20,000 times."""


def _lengths(build: Builder) -> tuple[int, ...]:
    return (build.block - 1, build.block, 2 * build.block + 3)


@workload(family="sampling")
def one_output_token(build: Builder) -> Iterator[Phase]:
    """Answers of one token.

    Hunts requests that end in the step in which their KV arrives: blocks are freed while a store to the offload tier or
    a notification of prefill is still due.
    """
    yield together("ask", [build.ask(length, max_tokens=1) for length in _lengths(build)])


@workload(family="sampling")
def long_answer(build: Builder) -> Iterator[Phase]:
    """Answers that fill more blocks than their prompts.

    Hunts errors where decode continues the transferred partial block: its first generated tokens go into that block.
    """
    lengths = (3, build.block - 2, build.block)
    yield together("ask", [build.ask(length, max_tokens=2 * build.block + 5, ignore_eos=True) for length in lengths])


@workload(family="sampling")
def min_tokens(build: Builder) -> Iterator[Phase]:
    """Answers that must have at least ten tokens before they may end.

    Hunts proxies and prefill servers that refuse min_tokens above prefill's one token, or do not pass it on to decode.
    """
    yield together("ask", [build.ask(length, max_tokens=12, min_tokens=10, stop=_STOPS) for length in _lengths(build)])


@workload(family="sampling")
def stop_strings(build: Builder) -> Iterator[Phase]:
    """Answers that end at a stop string, streamed and not streamed.

    Hunts proxies that drop parameters on the way to decode: the answer then does not stop.
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

    Hunts answers that change with the number of log-probabilities, and prefill servers that refuse some numbers.
    """
    yield together("ask", [build.ask(2 * build.block + 3, logprobs=number) for number in (None, 1, 5)])


@workload(family="sampling", needs=Needs(own_proxy=True))
def prompt_logprobs(build: Builder) -> Iterator[Phase]:
    """Prompts with prompt_logprobs, for which neither cache nor connector may be read.

    Hunts a decode server that waits for KV it will not use, and a prefill server that is never notified to free blocks.
    """
    prompt = build.ids(2 * build.block + 3)
    yield together("cold", [build.ask(prompt, prompt_logprobs=0, stream=False)])
    yield together("again", [build.ask(prompt, prompt_logprobs=1, stream=False), build.ask(prompt)])


@workload(family="sampling", needs=Needs(own_proxy=True))
def echo(build: Builder) -> Iterator[Phase]:
    """Answers that repeat their prompt, with log-probabilities (which are computed anew) and without, streamed or not.

    Hunts proxies that echo the request sent to prefill instead of the client's.
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
        evidence="each of three choices pulls the prompt and notifies prefill, which counts two of the three "
        "notifications as after expiry (6 for 3 requests); outputs were right; that prefill frees its blocks at the "
        "first notification is inferred",
    ),
)
def several_choices(build: Builder) -> Iterator[Phase]:
    """Three answers to each prompt (n = 3), at a temperature near zero.

    Hunts single-use transfers that are used three times: every choice pulls the same blocks, and after the first one's
    notification prefill may give them to other requests. (vLLM refuses n above 1 at temperature 0.)
    """
    yield together("ask", [build.ask(length, n=3, temperature=_NEARLY_GREEDY, seed=7) for length in _lengths(build)])
