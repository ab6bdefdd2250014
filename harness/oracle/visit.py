"""One request of an engine: what an operation did on one server, as far as the caches there are concerned.

Through the proxy an operation visits a prefill server, which generates one token, and a decode server, once for each
of its n choices: each choice is a request of its own to the engine, and each pulls the prompt. Asked directly, it
visits one server.

Which blocks it leaves behind: the whole blocks of its prompt, and those completed by its output save the last token,
which was sampled and never fed back, so it has no KV. Where the output is not fully known (the client went away; a stop
string was found, and the engine told later), blocks of unknown tokens may be there as well.

When: not before the operation was sent; completely once it had ended. A prefill server keeps the blocks of a
hand-over until decode's notification, which it reads in a step of its own, so they may come back a little later. An
operation that ended as INFO may go on for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.history import Operation, Outcome
from harness.oracle.blocks import Chain, Names
from harness.oracle.shape import Shape
from harness.verdict import Bounds

PhaseKey = tuple[str, str]
"""Scenario and phase, by name."""

NOTIFIED = 0.5
"""Seconds within which a prefill server has read the notification of a transfer whose answer has ended."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request to one engine."""

    who: str
    """The operation's request id."""
    phase: PhaseKey
    start: float
    end: float
    """Infinite where nobody knows."""
    latest: float
    """When it held no block any more."""
    sure: bool
    """Whether it certainly took place, on this server, to its end."""
    pulls: bool
    """Whether it has transfer parameters, so that NIXL may bring its prompt."""
    reads: bool
    """Whether it looks into caches at all."""
    prompt: tuple[int, ...]
    salt: str | None
    chain: Chain
    """The whole blocks of the prompt."""
    beyond: Chain
    """The blocks completed by what is known of the output."""
    known: tuple[int, ...]
    """All tokens known to have been in its sequence."""
    longest: int
    """Tokens that had KV, at most."""
    ends_known: bool
    """Whether ``chain`` and ``beyond`` are all that it left."""
    generated: Bounds
    unknown: str = ""
    """Why nothing of it can be predicted, although its prompt is known; empty where it can."""

    @property
    def tokens(self) -> int:
        """Prompt tokens: T of the formulas."""
        return len(self.prompt)

    @property
    def blind(self) -> bool:
        """Whether not even the prompt is known."""
        return not self.prompt


def prefill_visit(operation: Operation, shape: Shape | None, names: Names, *, here: bool) -> Visit:
    """What the proxy asks of a prefill server; ``here``: whether it is certainly this one."""
    generated = Bounds.exactly(1) if operation.outcome is Outcome.OK else Bounds(0, 1)
    # prompt_logprobs and echo are not passed on to it: it reads its caches in any case.
    return _visit(operation, shape, names, here=here, output=(), longest=1, reads=True, generated=generated, held=True)


def foreign_prefill_visit(operation: Operation, visit: Visit) -> Visit:
    """The same where the proxy is not the harness's own.

    Most ask prefill what the client asked, for one token, and it is the same request. But some leave out, as the
    harness's does, what another passes on: a prompt's log-probabilities keep prefill from its caches, and each further
    choice is a request of its own.
    """
    sampling = operation.request.sampling
    fields = {
        "prompt_logprobs": sampling.prompt_logprobs is not None,
        "echo": bool(sampling.echo) and sampling.logprobs is not None,
        "n": (sampling.n or 1) > 1,
    }
    told = [name for name, there in fields.items() if there]
    if not told:
        return visit
    asked = f"{visit.who} ({', '.join(told)})"
    why = f"what the proxy, which is not the harness's own, asks of prefill for {asked} is not known"
    return replace(visit, sure=False, unknown=why)


def serving_visits(
    operation: Operation, shape: Shape | None, names: Names, *, here: bool, pulls: bool
) -> Iterator[Visit]:
    """What a server does that generates the answer: one visit for each choice."""
    outputs = shape.outputs if shape else ((),)
    for number, output in enumerate(outputs):
        # The operation's tokens are counted once, with its first choice.
        generated = shape.generated if shape and number == 0 else Bounds(0, 0)
        yield _visit(
            operation,
            shape,
            names,
            here=here,
            output=output,
            longest=shape.longest if shape else 1,
            reads=not (shape and shape.skips_caches),
            generated=generated,
            pulls=pulls,
            ends_known=bool(shape and shape.ends_known),
        )


def _visit(  # noqa: PLR0913 - the two kinds of visit differ in these; keyword-only
    operation: Operation,
    shape: Shape | None,
    names: Names,
    *,
    here: bool,
    output: tuple[int, ...],
    longest: int,
    reads: bool,
    generated: Bounds,
    pulls: bool = False,
    held: bool = False,
    ends_known: bool = True,
) -> Visit:
    sent, ended = operation.sent, operation.ended
    completed = operation.outcome is Outcome.OK
    prompt, salt = (shape.prompt, shape.salt) if shape else ((), operation.request.cache_salt)
    everything = names.chain(salt, prompt + output[:-1])
    whole = len(prompt) // names.block_size
    end = ended.at if completed else float("inf")
    return Visit(
        who=operation.request.request_id,
        phase=(sent.scenario, sent.phase),
        start=sent.at,
        end=end,
        latest=end + NOTIFIED if held else end,
        sure=completed and here,
        pulls=pulls,
        reads=reads,
        prompt=prompt,
        salt=salt,
        chain=everything[:whole],
        beyond=everything[whole:],
        known=prompt + output,
        longest=len(prompt) + max(longest, len(output)),
        ends_known=ends_known and shape is not None,
        generated=generated,
    )
