"""Whether an answer ended at the right place. Log-probabilities do not show this.

An answer that reaches ``max_tokens`` ends there. A shorter answer was stopped (``finish_reason`` ``stop``), and vLLM
reports the cause in ``stop_reason``:

    stop_reason   the end is right if
    null          the last token is one of the model's end tokens
    a token id    the last token is this one, and one of the model's end tokens
    a text        it is a stop string of the request, and the last token completed its first occurrence

If the end is not right, the output is a mismatch. If the end cannot be checked, the output is unverified, unless a
reference with the same tokens confirms it (compare_both.py). The end tokens are known from the model's files
(``history.Decoding``) and from answers that servers ended without KV transfer (``_observed_end_tokens``). The teacher
forcing of an answer reports the text in which a stop string occurred (``Ended.prompt_end``).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.history import Choice, Decoding, History, Operation, Outcome
from harness.memo import once
from harness.scenario import Route
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.load_part import Load, asked_of, load_of
from harness.verify.judging.partial import is_partial

_STOPPED = ("stop", "tool_calls")
"""vLLM's chat endpoint reports a stop with a tool call under another name."""
_MAX_SEEN_ONCE = 2
"""So many tokens may count as end tokens although each ended the answer to one prompt only; models have one to five."""

Fault = tuple[Match, str]
"""MISMATCH or UNVERIFIED, and why."""


@dataclass(frozen=True, slots=True)
class EndTokens:
    """The tokens that may end an answer before ``max_tokens``."""

    tokens: frozenset[int]
    complete: bool
    """Whether ``tokens`` are known to be all of them."""


def known_end_tokens(history: History) -> EndTokens:
    """The end tokens named in the model's files, and the observed ones."""
    entries = tuple(history.of(Decoding))
    of_files = {token for entry in entries for token in entry.end_token_ids}
    complete = bool(of_files) and all(entry.ends_complete for entry in entries)
    return EndTokens(frozenset(of_files | set(_observed_end_tokens(history, complete=complete))), complete=complete)


def _observed_end_tokens(history: History, *, complete: bool) -> Iterator[int]:
    """Last tokens of answers that servers ended without transfer, if they look like end tokens.

    A model has few end tokens, and each ends the answers to several prompts. If a server truncates answers, control
    answers are truncated too: each ends with a different token, after which other answers go on.
    """
    prompts = {token: len(found) for token, found in _prompts_ended_by(history).items()}
    inner = _inner_tokens(history) if prompts else set()
    seldom = {token for token, count in prompts.items() if count == 1}
    few = not complete and len(seldom) <= _MAX_SEEN_ONCE
    return (token for token in prompts if token not in inner and (few or token not in seldom))


def _prompts_ended_by(history: History) -> dict[int, set[str]]:
    """The prompts whose answers ended with each token without transfer, as ids of the requests that have the prompt."""
    found: dict[int, set[str]] = {}
    for operation in history.operations():
        request = operation.request
        if request.route is Route.PROXY or operation.outcome is not Outcome.OK or request.sampling.stop:
            continue
        for choice in operation.ended.choices:
            if choice.token_ids and choice.finish_reason in _STOPPED and choice.stop_reason is None:
                found.setdefault(choice.token_ids[-1], set()).add(request.about or request.request_id)
    return found


def _inner_tokens(history: History) -> set[int]:
    """Tokens after which an answer went on although an end token would have stopped it."""
    return {*_inner_tokens_of(load_of(history)), *_inside(asked_of(history))}


# To read the answers of a large load takes longer than a step of verification should.
@once
def _inner_tokens_of(load: Load) -> frozenset[int]:
    return frozenset(_inside(load))


def _inside(operations: Iterable[Operation]) -> set[int]:
    return {
        token
        for operation in operations
        if operation.outcome is Outcome.OK
        and not operation.request.sampling.ignore_eos
        and not operation.request.sampling.min_tokens
        for choice in operation.ended.choices
        for token in choice.token_ids[:-1]
    }


def check_end(operation: Operation, compared: Compared, ends: EndTokens, forcings: Sequence[Operation]) -> Compared:
    """The result including the output's end. ``compared``: the result so far; ``forcings``: of the output."""
    if compared.match is Match.MISMATCH or is_partial(operation):
        return compared
    faults = [fault for choice in operation.ended.choices if (fault := _fault(operation, choice, ends, forcings))]
    faults.sort(key=lambda fault: fault[0] is not Match.MISMATCH)
    for match, text in faults[:1]:
        if match is Match.MISMATCH or compared.match is not Match.UNVERIFIED:
            return replace(compared, match=match, text=text)
    return compared


def _fault(operation: Operation, choice: Choice, ends: EndTokens, forcings: Sequence[Operation]) -> Fault | None:
    sampling, reason = operation.request.sampling, choice.finish_reason
    if reason is None or not choice.token_ids:
        return None
    if reason == "length":
        return _missed_stop(operation, choice)
    if len(choice.token_ids) >= sampling.max_tokens:
        return None
    so_far = f"it stopped after {len(choice.token_ids)} of {sampling.max_tokens} tokens"
    if reason not in _STOPPED:
        return Match.UNVERIFIED, f"{so_far} with finish_reason {reason!r}, which the harness cannot check"
    if isinstance(choice.stop_reason, str):
        return _at_string(operation, choice, choice.stop_reason, forcings, so_far)
    return _at_token(choice, ends, so_far, stops=sampling.stop or ())


def _missed_stop(operation: Operation, choice: Choice) -> Fault | None:
    """The fault that a stop string did not stop the answer.

    Stop strings have no effect before ``min_tokens``. With ``echo`` the text includes the prompt, which may have one.
    """
    sampling = operation.request.sampling
    if sampling.echo or sampling.min_tokens:
        return None
    passed = next((stop for stop in sampling.stop or () if stop and stop in choice.text), None)
    return None if passed is None else (Match.MISMATCH, f"it went on after its stop string {passed!r}")


def _at_token(choice: Choice, ends: EndTokens, so_far: str, *, stops: Collection[str]) -> Fault | None:
    last, reported = choice.token_ids[-1], choice.stop_reason
    if reported is not None and reported != last:
        return Match.MISMATCH, f"{so_far} at token {reported} by its stop_reason, but its last token is {last}"
    if last in ends.tokens:
        return None
    if reported is not None:
        return Match.UNVERIFIED, f"{so_far} at token {last}, which is not known to be an end token of this model"
    if stops:
        return Match.UNVERIFIED, f"{so_far}, and the server does not report at which of its stop strings"
    if ends.complete:
        return Match.MISMATCH, f"{so_far}, but its last token {last} is not an end token of this model"
    return Match.UNVERIFIED, (
        f"{so_far} at token {last}, and whether this is an end token of this model is not known: let --model name the "
        "directory that the servers load, with its generation_config.json"
    )


def _at_string(
    operation: Operation, choice: Choice, stop: str, forcings: Sequence[Operation], so_far: str
) -> Fault | None:
    if stop not in (operation.request.sampling.stop or ()):
        return Match.MISMATCH, f"{so_far} at {stop!r} by its stop_reason, which is not a stop string of the request"
    whole = (*(operation.prompt_token_ids or ()), *choice.token_ids)
    for forcing in forcings:
        spelled = forcing.ended.prompt_end
        if forcing.outcome is Outcome.OK and spelled and forcing.request.prompt == whole:
            own = spelled[-len(choice.token_ids) :]
            if stop in "".join(own) and stop not in "".join(own[:-1]):
                return None
    return Match.UNVERIFIED, f"{so_far} at {stop!r} by its stop_reason, and nothing shows that its text ends with it"
