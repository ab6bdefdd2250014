"""Which operations of a history are outputs of the load, and how each can be verified."""

from collections.abc import Collection, Iterable
from itertools import zip_longest

import numpy as np

from harness.deferred import tokens_put_away
from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.scenario import Purpose, Request, Route
from harness.verify.judging.load_part import Load, asked_of, load_of
from harness.verify.judging.partial import is_partial

VERIFICATION = "verification"
"""The name of the scenarios whose requests verify outputs."""


def completed(history: History, *purposes: Purpose) -> list[Operation]:
    """Requests of these purposes, none of them the load's, that were answered; in the order sent."""
    return [o for o in asked_of(history) if o.outcome is Outcome.OK and o.request.purpose in purposes]


def asked_about(history: History, purpose: Purpose) -> set[str | None]:
    """Ids of the requests about which a request of this purpose was sent."""
    return {o.request.about for o in asked_of(history) if o.request.purpose is purpose}


def operations_named(history: History, names: Collection[str]) -> dict[str, Operation]:
    """The operations with these request ids."""
    wanted = frozenset(names)
    return {name: o for o in history.operations() if (name := o.request.request_id) in wanted}


def to_verify(history: History) -> list[Operation]:
    """The load's answers, whole or begun, without those of cache-filling requests.

    A cache-filling request is one for one token from a server that is asked directly.
    """
    return _to_verify(load_of(history))


def through_proxy(history: History) -> list[Operation]:
    """The load's answers that came through the proxy, if the tokens of the prompt are known."""
    return _through_proxy(load_of(history))


@once
def _to_verify(load: Load) -> list[Operation]:
    answered = (o for o in load if _is_answered(o) or is_partial(o))
    return [o for o in answered if o.request.route is Route.PROXY or o.request.sampling.max_tokens > 1]


@once
def _through_proxy(load: Load) -> list[Operation]:
    # A prompt whose tokens are counted need not be read.
    return [o for o in load if _is_answered(o) and o.request.route is Route.PROXY and (o.prompt_tokens or _has_ids(o))]


def _has_ids(output: Operation) -> bool:
    return output.prompt_token_ids is not None


def sent_through_proxy(history: History) -> list[Operation]:
    """The load's requests through the proxy that may have had KV on decode, whichever way they ended.

    A wrong output may have been made from the KV of a request whose client left, or whose stream was cut.
    """
    return _sent_through_proxy(load_of(history))


@once
def _sent_through_proxy(load: Load) -> list[Operation]:
    return [o for o in load if _may_have_kv(o) and (o.prompt_tokens or _has_ids(o))]


def _may_have_kv(o: Operation) -> bool:
    return o.request.route is Route.PROXY and (_is_answered(o) or o.outcome is Outcome.INFO)


def _is_answered(o: Operation) -> bool:
    return o.outcome is Outcome.OK and o.request.expect_status is None


def can_be_forced(output: Operation) -> bool:
    """Whether the tokens of its prompt and of its answer are known."""
    if not _is_of_ids(output.request) and output.prompt_token_ids is None:
        return False
    if (output.request.sampling.n or 1) == 1 and tokens_put_away(output.ended):
        # The one choice has tokens: it need not be read to know that.
        return True
    choices = output.ended.choices
    return bool(choices) and all(choice.token_ids for choice in choices)


def needs_reference(output: Operation) -> bool:
    """Whether teacher forcing alone cannot verify the output.

    Forcing starts from the token ids that the server reported. It cannot show whether a text or a conversation reached
    the server as it was sent, whether a stop string ended the answer at the right place, or whether an echo's text is
    right. An answer without token ids cannot be forced. If it came through the proxy, it stays unverified; if a server
    was asked directly, a reference keeps the answer from being left out unnoticed.
    """
    request = output.request
    if not can_be_forced(output):
        return request.route is not Route.PROXY
    return not _is_of_ids(request) or bool(request.sampling.stop) or bool(request.sampling.echo)


def _is_of_ids(request: Request) -> bool:
    """Whether the prompt was sent as token ids."""
    if tokens_put_away(request):
        return True
    return not isinstance(request.prompt, str) and all(isinstance(token, int) for token in request.prompt[:1])


def verifiable(output: Operation) -> bool:
    """Whether any request can verify the output."""
    return can_be_forced(output) or needs_reference(output)


def tokens_of(output: Operation) -> int:
    """Engine tokens of an operation: prompt and answer."""
    return output.prompt_tokens + output.ended.output_tokens


def in_turn(outputs: Iterable[Operation], seed: int) -> list[Operation]:
    """One output of each scenario in turn; the order within a scenario is drawn from the seed."""
    everything = list(outputs)
    by_scenario: dict[str, list[Operation]] = {}
    for place in np.random.default_rng(seed).permutation(len(everything)):
        by_scenario.setdefault(everything[place].sent.scenario, []).append(everything[place])
    return [o for each in zip_longest(*by_scenario.values()) for o in each if o is not None]


def most_in_flight(history: History) -> int:
    """The largest number of the load's requests that were in flight at once."""
    return _most_in_flight(load_of(history))


@once
def _most_in_flight(load: Load) -> int:
    moments = np.array([(o.sent.at, 1) for o in load] + [(o.ended.at, -1) for o in load]).reshape(-1, 2)
    # Of what happens at one time, ends come first.
    in_order = np.lexsort((moments[:, 1], moments[:, 0]))
    return int(np.cumsum(moments[in_order, 1]).max(initial=0))
