"""A server request: one request as one server sees it, with all facts that matter to the server's caches.

An operation through the proxy becomes one request on a prefill server, which generates one token, and one request on a
decode server for each of its n choices, each of which pulls the prompt. An operation that is sent to a server directly
becomes requests on that server alone.

The blocks that a request leaves in the caches are the full blocks of its prompt and the blocks completed by its output
without the last token, which was sampled but never fed back and so has no KV. If the output is not fully known (the
client disconnected, or the engine learned late that a stop string had been found), further blocks of unknown tokens
may have been left.

A request does nothing before its operation was sent, and is complete when the operation has ended. A prefill server
holds a request's blocks until decode's notification, which it reads in an engine step of its own, so these blocks may
be freed a little later. A request whose operation ended as INFO may go on forever.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.history import Operation, Outcome
from harness.oracle.blocks import Block, Chain, Names
from harness.oracle.shape import Shape
from harness.verdict import Bounds

PhaseKey = tuple[str, str]
"""Names of scenario and phase."""

NOTIFICATION_DELAY = 0.5
"""Seconds after an answer's end within which the prefill server has read the notification of the transfer."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """A request to one engine."""

    request_id: str
    """The id of the operation's request."""
    phase: PhaseKey
    start: float
    end: float
    """Infinite if not known."""
    released: float
    """When the request certainly held no block any more."""
    certain: bool
    """Whether this server certainly served the request, and completely."""
    pulls: bool
    """Whether the request has transfer parameters, so that NIXL may bring its prompt."""
    reads_caches: bool
    prompt: Sequence[int]
    """Token ids; empty if not known. They may lie in the journal (:class:`harness.oracle.shape.PromptOf`)."""
    salt: str | None
    chain: Chain
    """The full blocks of the prompt."""
    output_chain: Chain
    """The blocks completed by the known part of the output."""
    known_length: int
    """Tokens of the prompt and of the known output."""
    rest: tuple[int, ...]
    """The known tokens behind the known blocks; empty if all blocks are known."""
    max_length: int
    """Upper bound on the prompt and output tokens that had KV."""
    blocks_known: bool
    """Whether ``chain`` and ``output_chain`` are all the blocks that the request left."""
    generated: Bounds
    why_unpredictable: str = ""
    """Why no counter can be predicted although the prompt is known; empty if counters can be predicted."""

    @property
    def tokens(self) -> int:
        """Prompt tokens: T of the formulas."""
        return len(self.prompt)

    @property
    def prompt_unknown(self) -> bool:
        """Whether not even the prompt is known."""
        return not self.prompt


def possibly_cached_before(requests: Sequence[ServerRequest], *, attached: bool) -> Callable[[Block], bool]:
    """A test whether a block may have been cached before the run: on an attached deployment, without a salt."""
    unsalted = {name for request in requests if attached and request.salt is None for name in request.chain}
    return unsalted.__contains__


def prefill_request(operation: Operation, shape: Shape | None, names: Names, *, known_server: bool) -> ServerRequest:
    """The request that the proxy sends to prefill; ``known_server``: whether this server certainly got it."""
    return _server_request(
        operation,
        shape,
        names,
        known_server=known_server,
        output=(),
        max_output=1,
        # The harness's proxy does not pass on prompt_logprobs and echo, so the request reads caches in any case.
        reads_caches=True,
        generated=Bounds.exactly(1) if operation.outcome is Outcome.OK else Bounds(0, 1),
        held_for_decode=True,
    )


def foreign_prefill_request(operation: Operation, request: ServerRequest) -> ServerRequest:
    """The prefill request of a proxy that is not the harness's own.

    Most proxies send prefill the client's request with an output of one token, which is the same as ``request``. Some
    pass on parameters that the harness's proxy leaves out: with prompt_logprobs prefill does not read its caches, and
    each further choice is a request of its own. Then nothing can be predicted.
    """
    sampling = operation.request.sampling
    parameters = {
        "prompt_logprobs": sampling.prompt_logprobs is not None,
        "echo": bool(sampling.echo) and sampling.logprobs is not None,
        "n": (sampling.n or 1) > 1,
    }
    given = [name for name, is_given in parameters.items() if is_given]
    if not given:
        return request
    which = f"{request.request_id} ({', '.join(given)})"
    why = f"the request that the proxy, which is not the harness's own, sends to prefill for {which} is not known"
    return replace(request, certain=False, why_unpredictable=why)


def serving_requests(
    operation: Operation, shape: Shape | None, names: Names, *, known_server: bool, pulls: bool
) -> Iterator[ServerRequest]:
    """The requests on the server that generates the answer: one for each choice."""
    outputs = shape.outputs if shape else ((),)
    for number, output in enumerate(outputs):
        yield _server_request(
            operation,
            shape,
            names,
            known_server=known_server,
            output=output,
            max_output=shape.max_output if shape else 1,
            reads_caches=not (shape and shape.skips_caches),
            # The tokens of all choices are counted once, with the first choice.
            generated=shape.generated if shape and number == 0 else Bounds(0, 0),
            pulls=pulls,
            output_complete=bool(shape and shape.outputs_complete),
        )


def _server_request(  # noqa: PLR0913 - requests on prefill and on the serving server differ in these; keyword-only
    operation: Operation,
    shape: Shape | None,
    names: Names,
    *,
    known_server: bool,
    output: tuple[int, ...],
    max_output: int,
    reads_caches: bool,
    generated: Bounds,
    pulls: bool = False,
    held_for_decode: bool = False,
    output_complete: bool = True,
) -> ServerRequest:
    sent, completed = operation.sent, operation.outcome is Outcome.OK
    prompt, salt = (shape.prompt, shape.salt) if shape else ((), operation.request.cache_salt)
    chain = names.chain(salt, prompt)
    blocks = names.chain(salt, prompt + output[:-1]) if len(output) > 1 else chain
    known = output_complete and shape is not None
    # Where the entries come from several machines, clocks may differ by a little.
    end = max(operation.ended.at, sent.at) if completed else float("inf")
    return ServerRequest(
        request_id=operation.request.request_id,
        phase=_phase(sent.scenario, sent.phase),
        start=sent.at,
        end=end,
        released=end + NOTIFICATION_DELAY if held_for_decode else end,
        certain=completed and known_server,
        pulls=pulls,
        reads_caches=reads_caches,
        prompt=shape.kept_prompt if shape else (),
        salt=salt,
        chain=chain,
        output_chain=blocks[len(chain) :] or (),
        known_length=_number(len(prompt) + len(output)),
        rest=() if known else (prompt + output)[len(blocks) * names.block_size :],
        max_length=_number(len(prompt) + max(max_output, len(output))),
        blocks_known=known,
        generated=_bounds(generated.low, generated.high),
    )


# A run has hundreds of thousands of requests: what is equal in many of them is kept once.
_bounds = lru_cache(maxsize=1024)(Bounds)
_number = lru_cache(maxsize=4096)(int)


@lru_cache(maxsize=1024)
def _phase(scenario: str, phase: str) -> PhaseKey:
    return scenario, phase
