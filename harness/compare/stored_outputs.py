"""The outputs of a stored run, by what was asked: the same request has the same key in every run."""

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.history import Choice, History, Operation, Outcome
from harness.scenario import Request, Route
from harness.verify.judging.compared import RIGHT, Match
from harness.verify.judging.evidence import look_at_outputs

_KEY_BYTES = 12


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One request's output."""

    request: str
    """The request's id in its run."""
    tokens: npt.NDArray[np.int32]
    """Shape (tokens of all choices,); characters if the server reported no token ids."""
    leads: npt.NDArray[np.float32]
    """Shape (tokens of all choices,), or (0,) if not reported: by how much each token's log-probability exceeds that of
    the best other token; nats."""
    wrong: bool
    right: bool
    """Whether it was verified and found right. Most outputs of a large load are neither."""
    doubtful: bool


def stored_outputs(history: History, found_wrong: Collection[str]) -> dict[bytes, StoredOutput]:
    """The outputs of the load's completed requests whose answer is determined by the request.

    Several requests of one run that are alike are told apart by their order. ``found_wrong``: ids of requests that a
    finding says are wrong.
    """
    compared = {one.request_id: one for one in look_at_outputs(history).compared}
    seen: Counter[bytes] = Counter()
    found = {}
    for operation in history.operations(route=Route.PROXY):
        request = operation.request
        if not request.of_load or request.about is not None or not _determined(request):
            continue
        key = _key(operation)
        seen[key] += 1
        if operation.outcome is not Outcome.OK:
            continue
        one = compared.get(request.request_id)
        found[key + seen[key].to_bytes(4, "big")] = StoredOutput(
            request.request_id,
            *_tokens(operation),
            wrong=request.request_id in found_wrong or (one is not None and one.match is Match.MISMATCH),
            right=one is not None and one.match in RIGHT,
            doubtful=one is not None and bool(one.doubt),
        )
    return found


def _determined(request: Request) -> bool:
    return request.sampling.temperature == 0 or request.sampling.seed is not None


def _key(operation: Operation) -> bytes:
    request = operation.request
    asked = repr((request.endpoint.value, request.prompt, request.sampling))
    return hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def _tokens(operation: Operation) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    choices = operation.ended.choices
    ids = [token for choice in choices for token in choice.token_ids]
    if not ids:
        return np.array([ord(letter) for choice in choices for letter in choice.text], np.int32), np.empty(
            0, np.float32
        )
    leads = [lead for choice in choices for lead in _leads(choice)]
    # A token id is read with up to 64 bits; two that are alike in 32 of them are one vocabulary's.
    short = (np.array(ids, np.int64) & 0x7FFFFFFF).astype(np.int32)
    return short, np.array(leads if len(leads) == len(ids) else [], np.float32)


def _leads(choice: Choice) -> list[float]:
    known = (one for one in choice.logprobs)
    return [float("nan") if one is None or one.runner_up is None else one.logprob - one.runner_up for one in known]
