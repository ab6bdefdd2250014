"""Outputs that are the beginning of an answer: the client left, or the stream was cut or reported an error. Pure.

The tokens that were served before must be the beginning of the right answer: whoever read them acted on them. They are
verified like a whole answer, by teacher forcing prompt and tokens, or by a reference whose beginning is compared.

Rule 1: how many tokens there are, and how the answer ended, is not judged: :mod:`harness.checkers.completion` does it.
Rule 2: a partial output counts only if requests that verify it were sent. Runs of versions that left such outputs out
        are judged as they were.
Rule 3: an answer of several choices counts if each choice has tokens: otherwise nobody knows which ones these are.
"""

from dataclasses import replace

from harness.history import Choice, Ending, Operation, Outcome

_BEGUN = (Ending.LEFT, Ending.CUT, Ending.TIMED_OUT, Ending.ERROR_INSIDE, Ending.UNFINISHED)
"""Endings of answers that may have begun."""


def is_partial(operation: Operation) -> bool:
    """Whether the operation is a request of the load that ended before its answer did, with tokens of all choices."""
    request, ended = operation.request, operation.ended
    if operation.outcome is not Outcome.INFO or ended.ending not in _BEGUN or not ended.output_tokens:
        return False
    whole = len(ended.choices) == (request.sampling.n or 1) and all(choice.token_ids for choice in ended.choices)
    return request.of_load and request.expect_status is None and whole


def beginning_of(reference: Operation, output: Operation) -> Operation:
    """The reference, whose choices end where those of the partial output end."""
    pairs = zip(reference.ended.choices, output.ended.choices, strict=False)
    return replace(reference, ended=replace(reference.ended, choices=tuple(_cut(one, other) for one, other in pairs)))


def _cut(choice: Choice, partial: Choice) -> Choice:
    tokens = len(partial.token_ids)
    return replace(
        choice,
        token_ids=choice.token_ids[:tokens],
        logprobs=choice.logprobs[:tokens],
        text=choice.text[: len(partial.text)],
    )


def how_far(operation: Operation) -> str:
    """Up to where a partial output came, in words."""
    return f"its answer ended early ({operation.ended.ending}), after {operation.ended.output_tokens:,} tokens"
