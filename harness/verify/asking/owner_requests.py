"""The requests by which owners of wrong outputs are searched for. Pure.

owner test     The candidate's prompt with the wrong output's last token, for one token, where its blocks are cached.
continuation   The same for as many tokens as the wrong output has: judging/continuations.py.
cache check    The candidate's own prompt, for one token, to see whether the cache still has its KV.
forcing        The wrong output under the same prompt.
decoy          The wrong output under the end of another prompt, for a fifth of a forcing's tokens. An answer that
               continues it may continue any prompt (judging/ownership.py).
"""

from dataclasses import replace

from harness.history import Operation
from harness.scenario import Condition, Endpoint, Purpose, Request, Sampling
from harness.verify.asking.candidates import answer_of
from harness.verify.asking.options import Verification
from harness.verify.asking.requests import Tokens, teacher_forcing

_LOGPROBS = 5
"""Log-probabilities of an owner test's tokens. Twenty tell hardly more."""
_END = 32
"""Tokens of the end of a decoy's prompt: loops and lists repeat within so many, and requests end in a form of words."""
_COMMON = 8
"""So many tokens in a row that two prompts share are a form of words, which may ask for the same answer."""


def owner_test(verification: Verification, wrong: Operation, owner: Operation, prompt: Tokens) -> Request:
    """The first token under a candidate's prompt."""
    return _from_cache(verification, wrong, owner, prompt, f"{_who(wrong)}-like-{_who(owner)}", 1)


def continuation(verification: Verification, wrong: Operation, owner: Operation, prompt: Tokens) -> Request:
    """The answer to a candidate's prompt, of the wrong output's length."""
    tokens = len(answer_of(wrong))
    return _from_cache(verification, wrong, owner, prompt, f"{_who(wrong)}-with-{_who(owner)}", tokens)


def cache_check(verification: Verification, wrong: Operation, owner: Operation) -> Request:
    """The first token under the candidate's own prompt."""
    prompt = owner.prompt_token_ids or ()
    return _from_cache(verification, wrong, owner, prompt, f"{_who(wrong)}-kept-{_who(owner)}", 1)


def forcing(verification: Verification, wrong: Operation, owner: Operation, prompt: Tokens) -> Request:
    """The wrong output under a candidate's prompt."""
    answer = answer_of(wrong)[: max(0, verification.room(prompt) - 1)]
    return _forcing(verification, wrong, _who(owner), f"{_who(wrong)}-as-{_who(owner)}", prompt, answer)


def decoy(verification: Verification, wrong: Operation, owner: str, prompt: Tokens, like: Tokens) -> Request:
    """The wrong output under a prompt's end, or under all of it if more of it is as in the prompt ``like``.

    ``owner``: the id of the request that has the prompt. A beginning that both prompts share, such as instructions for
    every answer, may be the reason that the output continues both.
    """
    end = _end_of(prompt, like)
    answer = answer_of(wrong) if end != prompt else answer_of(wrong)[: max(0, verification.room(prompt) - 1)]
    asked = _forcing(verification, wrong, owner, f"{_who(wrong)}-after-{owner}", end, answer)
    return asked if end == prompt else replace(asked, condition=Condition.PROMPT_END)


def _end_of(prompt: Tokens, like: Tokens) -> Tokens:
    """The end of a prompt, behind its first token, without which some models answer nothing sensible."""
    left_out = prompt[1:-_END]
    return prompt if not left_out or phrases(left_out) & phrases(like) else (*prompt[:1], *prompt[-_END:])


def phrases(tokens: Tokens) -> set[Tokens]:
    """All runs of so many tokens that two prompts share them by no accident."""
    return {tokens[start : start + _COMMON] for start in range(len(tokens) - _COMMON + 1)}


def _forcing(  # noqa: PLR0913, PLR0917 - a forcing is what these are
    verification: Verification, wrong: Operation, owner: str, name: str, prompt: Tokens, answer: Tokens
) -> Request:
    salt, route = verification.how.salt, verification.forcing_route
    return replace(teacher_forcing(_who(wrong), prompt, answer, name=name, salt=salt, route=route), owner=owner)


def _from_cache(  # noqa: PLR0913, PLR0917 - a request is what these are
    verification: Verification, wrong: Operation, owner: Operation, prompt: Tokens, name: str, tokens: int
) -> Request:
    return Request(
        name,
        prompt,
        Sampling(max_tokens=tokens, logprobs=_LOGPROBS, ignore_eos=True),
        route=verification.forcing_route,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
        cache_salt=owner.request.cache_salt,
        purpose=Purpose.OWNER_TEST,
        about=_who(wrong),
        owner=_who(owner),
    )


def _who(operation: Operation) -> str:
    return operation.request.request_id
