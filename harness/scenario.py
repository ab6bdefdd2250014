"""What to do: requests, grouped into phases, grouped into a scenario. Frozen literals; no behaviour.

A *phase* is the unit of judgement: both servers are read before it and after it has settled, and what the
counters must say is predicted for exactly its requests. Requests of one phase may overlap up to its
concurrency; requests of different phases never do.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Route(StrEnum):
    """Whom a request is sent to."""

    PROXY = "proxy"
    """Through the proxy: prefill, KV transfer, decode. The path under test."""
    PREFILL = "prefill"
    """To a prefill server alone, without transfer parameters."""
    DECODE = "decode"
    """To a decode server alone, without transfer parameters."""
    REFERENCE = "reference"
    """To a server outside the deployment, of the same model, that tells what is right."""


class Endpoint(StrEnum):
    """The OpenAI endpoint."""

    COMPLETIONS = "/v1/completions"
    CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


RESET_PATH = "/reset_prefix_cache"
"""Of vLLM's development mode (``VLLM_SERVER_DEV_MODE=1``)."""


class InquiryKind(StrEnum):
    """Kinds of requests that are asked to find out more."""

    PROBE = "probe"
    """A prefix of the other's prompt, through a cache that holds its blocks."""
    SUPPOSITION = "supposition"
    """What another prompt goes on to, with the other's last token for its own: was it answered with that one's KV?"""
    RETRY = "retry"
    """The other once more, or a prefix of it, by the same path: does it happen again, and from which block on?"""
    RESET = "reset"
    """No question: the server's prefix cache is emptied, its offload tier stays as it is (``RESET_PATH``)."""
    SALT = "salt"
    """One prompt under one ``cache_salt`` and under another: does the server keep the two apart?"""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Why a request is asked that is neither of the load nor a reference: to learn more about another one."""

    kind: InquiryKind
    about: str = ""
    """The other's request id."""
    under: str = ""
    """Of a supposition: the request id of whose prompt is supposed. Of a retry: ``together`` or ``alone``. Of a test of
    salts: which of its requests (workloads/salts.py)."""


Prompt = tuple[int, ...] | str | tuple[Message, ...]
"""Token ids, or text, or a conversation."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Greedy unless said otherwise; fields as the OpenAI API and vLLM name them. None: not sent."""

    max_tokens: int = 20
    min_tokens: int | None = None
    ignore_eos: bool = False
    temperature: float = 0.0
    seed: int | None = None
    """Of the sampling, where the temperature is above 0."""
    n: int | None = None
    stop: tuple[str, ...] | None = None
    logprobs: int | None = None
    """How many alternatives per output token, a greedy one itself the first: the margin to the second needs 2."""
    prompt_logprobs: int | None = None
    """vLLM reads no cache and no connector for a request that asks for these: a clean path."""
    echo: bool | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``request_id`` is unique in a run and travels as X-Request-Id."""

    request_id: str
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    route: Route = Route.PROXY
    server: int | None = None
    """Which of several servers of the route; None: any (the proxy's choice, or round robin)."""
    endpoint: Endpoint = Endpoint.COMPLETIONS
    stream: bool = True
    cache_salt: str | None = None
    """Isolates the request from every prefix cache and offload tier (vLLM hashes it into the first block).

    Not every gateway passes it on and not every tier heeds it: a run tests that before anything rests on it."""
    reference_for: str | None = None
    """The request_id whose output this request, sent without transfer, shows the truth of."""
    continues: str | None = None
    """The request_id of the turn before: its whole prompt and its answer come before this prompt.

    Nobody knows an answer before it is given, so the runner puts them there when it sends, and the history holds the
    whole prompt. As token ids, text or messages, whichever both prompts are. The other request must have ended.
    """
    inquiry: Inquiry | None = None
    """None: the request is of the load, or somebody's reference."""
    expect_status: int | None = None
    """The HTTP status with which it must be refused; None: it must be served."""

    @property
    def tests_salts(self) -> bool:
        """Whether it asks if the server keeps salts apart, and nothing about the load."""
        return self.inquiry is not None and self.inquiry.kind is InquiryKind.SALT

    @property
    def resets(self) -> bool:
        """Whether it empties a cache and asks nothing."""
        return self.inquiry is not None and self.inquiry.kind is InquiryKind.RESET


@dataclass(frozen=True, slots=True)
class Phase:
    """Requests that may overlap, up to ``concurrency`` at a time.

    ``counted``: whether counters are read around it and judged; ``watched``: whether they are read all the same.
    """

    name: str
    requests: tuple[Request, ...]
    concurrency: int = 1
    counted: bool = True
    watched: bool = False
    background: tuple[Request, ...] = ()
    """Kept in flight beside the others, ``background_concurrency`` at a time, until those have ended.

    They are operations of the phase like any other; what is not sent by then never is, nor is its reference.
    """
    background_concurrency: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Phases, run one after another. ``purpose`` says which bug it hunts."""

    name: str
    purpose: str
    phases: tuple[Phase, ...]
