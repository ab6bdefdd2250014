"""Whether an answer ended where it had to; what no token's log-probability shows.

An answer that reaches ``max_tokens`` ends there. One that is shorter was stopped (``finish_reason`` ``stop``), and of
that vLLM says in ``stop_reason`` by what:

    stop_reason   right where
    null          the last token is one of the model's end tokens
    a token id    the last token is that one, and one of the model's end tokens
    a text        it is a stop string that the request names, and the last token completed it for the first time

Where a row is contradicted, the answer is cut short: a mismatch. Where it cannot be told, the answer is unverified,
unless a reference of the same tokens shows its end right (beside_reference.py). Which tokens end an answer is known
from the model's files (``history.Decoding``), and from what servers ended by themselves, without transfer
(``_believed``). What text a stop string stood in is told by the teacher forcing of the answer (``Ended.prompt_end``).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.history import Choice, Decoding, History, Operation, Outcome
from harness.scenario import Route
from harness.verify.judging.compared import Compared, Match

_STOPPED = ("stop", "tool_calls")
"""vLLM's chat calls a stop with a tool call by another name."""
_MOST_SEEN_ONCE = 2
# End tokens that are believed although only one prompt's answer ended with them; models have one to five.

Doubt = tuple[Match, str]
"""MISMATCH or UNVERIFIED, and why."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What may end an answer before its length."""

    tokens: frozenset[int]
    complete: bool
    """Whether ``tokens`` are known to be all."""


def ends_of(history: History) -> Ends:
    """What a history knows of it."""
    entries = tuple(history.of(Decoding))
    told = {token for entry in entries for token in entry.end_token_ids}
    complete = bool(told) and all(entry.ends_complete for entry in entries)
    return Ends(frozenset(told | set(_believed(history, complete=complete))), complete=complete)


def _believed(history: History, *, complete: bool) -> Iterator[int]:
    """Last tokens of what servers ended by themselves, without transfer, that are not just where they cut answers.

    A server that cuts answers short cuts control answers, too. Then each ends with a token of its own, which others
    pass over; a model's end tokens are few, and end the answers of several prompts.
    """
    prompts = {token: len(those) for token, those in _ended_by(history).items()}
    passed = _passed_by(history) if prompts else set()
    once = {token for token, count in prompts.items() if count == 1}
    few = not complete and len(once) <= _MOST_SEEN_ONCE
    return (token for token in prompts if token not in passed and (few or token not in once))


def _ended_by(history: History) -> dict[int, set[str]]:
    """The prompts whose answers a token ended, by token: each is named by the request that asked it first."""
    found: dict[int, set[str]] = {}
    for operation in history.operations():
        request = operation.request
        if request.route is Route.PROXY or operation.outcome is not Outcome.OK or request.sampling.stop:
            continue
        for choice in operation.ended.choices:
            if choice.token_ids and choice.finish_reason in _STOPPED and choice.stop_reason is None:
                found.setdefault(choice.token_ids[-1], set()).add(request.about or request.request_id)
    return found


def _passed_by(history: History) -> set[int]:
    """Tokens after which some answer went on that would have stopped at an end token."""
    return {
        token
        for operation in history.operations()
        if operation.outcome is Outcome.OK
        and not operation.request.sampling.ignore_eos
        and not operation.request.sampling.min_tokens
        for choice in operation.ended.choices
        for token in choice.token_ids[:-1]
    }


def with_end(operation: Operation, compared: Compared, ends: Ends, forcings: Sequence[Operation]) -> Compared:
    """What is known of an output, in view of how it ended; ``forcings``: its teacher forcings."""
    if compared.match is Match.MISMATCH:
        return compared
    doubts = [doubt for choice in operation.ended.choices if (doubt := _doubt(operation, choice, ends, forcings))]
    doubts.sort(key=lambda doubt: doubt[0] is not Match.MISMATCH)
    for match, text in doubts[:1]:
        if match is Match.MISMATCH or compared.match is not Match.UNVERIFIED:
            return replace(compared, match=match, text=text)
    return compared


def _doubt(operation: Operation, choice: Choice, ends: Ends, forcings: Sequence[Operation]) -> Doubt | None:
    sampling, reason = operation.request.sampling, choice.finish_reason
    if reason is None or not choice.token_ids:
        return None
    if reason == "length":
        return _passed_over(operation, choice)
    if len(choice.token_ids) >= sampling.max_tokens:
        return None
    so_far = f"it stopped after {len(choice.token_ids)} of {sampling.max_tokens} tokens"
    if reason not in _STOPPED:
        return Match.UNVERIFIED, f"{so_far} for the reason {reason!r}, which nothing confirms"
    if isinstance(choice.stop_reason, str):
        return _by_text(operation, choice, choice.stop_reason, forcings, so_far)
    return _by_token(choice, ends, so_far, stops=sampling.stop or ())


def _passed_over(operation: Operation, choice: Choice) -> Doubt | None:
    """A stop string that did not stop it. Before ``min_tokens`` none does; an echo's text begins with the prompt."""
    sampling = operation.request.sampling
    if sampling.echo or sampling.min_tokens:
        return None
    passed = next((stop for stop in sampling.stop or () if stop and stop in choice.text), None)
    return None if passed is None else (Match.MISMATCH, f"it went on after {passed!r}, and was to stop there")


def _by_token(choice: Choice, ends: Ends, so_far: str, *, stops: Collection[str]) -> Doubt | None:
    last, named = choice.token_ids[-1], choice.stop_reason
    if named is not None and named != last:
        return Match.MISMATCH, f"{so_far} at token {named}, as it says, and its last token is {last}"
    if last in ends.tokens:
        return None
    if named is not None:
        return Match.UNVERIFIED, f"{so_far} at token {last}, which is not known to end an answer of this model"
    if stops:
        return Match.UNVERIFIED, f"{so_far}, and does not say at which of its stop strings"
    if ends.complete:
        return Match.MISMATCH, f"{so_far}, and its last token {last} is none that ends an answer of this model"
    return Match.UNVERIFIED, (
        f"{so_far} at token {last}, and whether that ends an answer of this model is not known: name the directory "
        "that the servers load with --model, its generation_config.json included"
    )


def _by_text(
    operation: Operation, choice: Choice, stop: str, forcings: Sequence[Operation], so_far: str
) -> Doubt | None:
    if stop not in (operation.request.sampling.stop or ()):
        return Match.MISMATCH, f"{so_far} at {stop!r}, as it says, and nobody asked for that"
    whole = (*(operation.prompt_token_ids or ()), *choice.token_ids)
    for forcing in forcings:
        spelled = forcing.ended.prompt_end
        if forcing.outcome is Outcome.OK and spelled and forcing.request.prompt == whole:
            own = spelled[-len(choice.token_ids) :]
            if stop in "".join(own) and stop not in "".join(own[:-1]):
                return None
    return Match.UNVERIFIED, f"{so_far} at {stop!r}, as it says, and nothing shows that this stood there"
