"""References to KV on a prefill server (vLLM's ``kv_transfer_params``): a request is given one when it is sent. Pure.

A proxy hands such a reference from prefill to decode. Here a request sends another request's reference, as it was given
or altered, so that a run can show what a decode server makes of it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness.history import Ended
from harness.run.conversations import Unanswered
from harness.scenario import Altered, Request

Params = dict[str, Any]

_NOBODY = "00000000-0000-0000-0000-000000000000"
"""An engine and a request that no server has."""
_BEYOND = 1_000_000
"""More blocks than any server has."""
_TIMES = 10_000
_NOTHING_LISTENS = 1
"""A port that only the system may use, and that no server of a model does."""


class References:
    """Remembers the references that requests were given, if other requests are to send them."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._wanted = {request.reference_of for request in requests}
        self._given: dict[str, tuple[Request, Ended]] = {}

    def remember(self, request: Request, ended: Ended) -> None:
        """Remember how ``request`` ended, if another request is to send its reference."""
        if request.request_id in self._wanted:
            self._given[request.request_id] = request, ended

    def before(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Ended]]:
        """The requests whose references these send, with their ends, as far as they have ended."""
        for one in requests:
            if one.reference_of in self._given:
                yield self._given[one.reference_of]

    def whole(self, request: Request) -> Request:
        """The request with its reference. Raises Unanswered if the other request has not ended or was given none."""
        if request.reference_of is None:
            return request
        _, ended = self._given.get(request.reference_of, (None, None))
        if ended is None or ended.reference is None:
            why = "which has not ended" if ended is None else f"which was given no reference ({ended.cause})"
            raise Unanswered(f"not sent: it sends the reference of {request.reference_of}, {why}")
        return replace(request, reference=altered(ended.reference, request.altered))


def altered(reference: str, how: Altered | None) -> str:
    """The reference, altered; both as JSON."""
    if how is None:
        return reference
    return json.dumps(_CHANGES[how](json.loads(reference)))


def _with(**fields: Any) -> Callable[[Params], Params]:
    return lambda params: {**params, **fields}


def _blocks(change: Callable[[list[int]], list[Any]]) -> Callable[[Params], Params]:
    """Changes the list of block ids of each KV cache group."""

    def changed(params: Params) -> Params:
        ids = params.get("remote_block_ids") or []
        in_groups = bool(ids) and isinstance(ids[0], list)
        return {**params, "remote_block_ids": [change(group) for group in ids] if in_groups else change(ids)}

    return changed


def _twice_the_ranks(params: Params) -> Params:
    return {**params, "tp_size": 2 * (params.get("tp_size") or 1)}


def _lacks_request(params: Params) -> Params:
    return {name: value for name, value in params.items() if name != "remote_request_id"}


def _made_up(params: Params) -> Params:
    blocks = _blocks(lambda ids: list(range(1, len(ids) + 1)))(params)["remote_block_ids"]
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_block_ids": blocks,
        "remote_engine_id": _NOBODY,
        "remote_request_id": _NOBODY,
        "remote_host": "127.0.0.1",
        "remote_port": _NOTHING_LISTENS,
        "tp_size": 1,
    }


_CHANGES: Mapping[Altered, Callable[[Params], Any]] = {
    Altered.UNKNOWN_REQUEST: _with(remote_request_id=_NOBODY),
    Altered.UNKNOWN_ENGINE: _with(remote_engine_id=_NOBODY),
    Altered.OTHER_HOST: _with(remote_engine_id=f"{_NOBODY}-host", remote_host="127.0.0.2"),
    Altered.OTHER_PORT: _with(remote_engine_id=f"{_NOBODY}-port", remote_port=_NOTHING_LISTENS),
    Altered.OUT_OF_RANGE: _blocks(lambda ids: [_BEYOND + block for block in ids]),
    Altered.NEGATIVE: _blocks(lambda ids: [-1 - block for block in ids]),
    Altered.TOO_FEW: _blocks(lambda ids: ids[:-1]),
    Altered.TOO_MANY: _blocks(lambda ids: ids + ids[:1]),
    Altered.REORDERED: _blocks(lambda ids: ids[::-1]),
    Altered.HUGE: _blocks(lambda ids: ids * _TIMES),
    Altered.NO_BLOCKS: _blocks(lambda _: []),
    Altered.NO_GROUPS: _with(remote_block_ids=[]),
    Altered.NULL_BLOCKS: _with(remote_block_ids=None),
    Altered.TEXT_BLOCKS: _with(remote_block_ids="blocks"),
    Altered.TEXT_IDS: _blocks(lambda ids: [str(block) for block in ids]),
    Altered.FRACTIONS: _blocks(lambda ids: [block + 0.5 for block in ids]),
    Altered.OTHER_TP: _twice_the_ranks,
    Altered.TEXT_PORT: _with(remote_engine_id=f"{_NOBODY}-text", remote_port="port"),
    Altered.LACKS_REQUEST: _lacks_request,
    Altered.TEXT: lambda _: "a reference",
    Altered.SYNTHETIC: _made_up,
}
