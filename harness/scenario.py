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


class Purpose(StrEnum):
    """What a request is for. Nobody tells it from an id, a route or a phase's name."""

    LOAD = "load"
    """It is one of those whose service is tested."""
    BACKGROUND = "background"
    """So is this, and it keeps the servers busy beside a workload's own requests."""
    REFERENCE = "reference"
    """Another one's prompt once more, without KV transfer: its answer is the right one."""
    CONTROL = "control"
    """Another one's prompt once more, on a decode server alone: its answer shows how much of a difference is noise."""
    FORCING = "forcing"
    """Teacher forcing: prompt and answer of another one in one prefill, whose log-probabilities judge that answer. With
    an ``owner``, under that one's prompt."""
    PROBE = "probe"
    """A prefix of another one's prompt, through a cache that holds its blocks."""
    OWNER_TEST = "owner-test"
    """Which token follows the prompt of ``owner`` with another one's last token: was that answered from its KV?"""
    RETRY = "retry"
    """Another one once more, by the same path: does a wrong answer come again?"""
    RESET = "reset"
    """No question: the server's prefix cache is emptied, its offload tier stays as it is (``RESET_PATH``)."""
    SALT_TEST = "salt-test"
    """A prompt under one ``cache_salt`` or under another: does the server keep the two apart?"""


class Condition(StrEnum):
    """Under which condition a request is asked, where its purpose knows several."""

    SUSPECT = "suspect"
    """Of a control: the other one's answer looked wrong. Other controls are of prompts drawn at random."""
    PREFIX_CACHE = "prefix-cache"
    """Of a probe: it reads a server's prefix cache."""
    OFFLOAD_TIER = "offload-tier"
    """Of a probe: it reads a server's offload tier, for the prefix cache was emptied."""
    UNDER_LOAD = "under-load"
    """Of a retry: as many are in flight as the load had."""
    ALONE = "alone"
    """Of a retry: nothing else is in flight."""
    SALT_FIRST = "salt-first"
    """Of a salt test: what is asked first. The next three ask the same under the same salt."""
    SALT_AGAIN = "salt-again"
    SALT_COUNTED = "salt-counted"
    """With the servers' counters read around it."""
    SALT_FORCED = "salt-forced"
    """With ``prompt_logprobs``, as a teacher forcing."""
    SALT_OTHER = "salt-other"
    """Under another salt."""
    SALT_PROXY = "salt-proxy"
    """As ``SALT_FIRST``, through the proxy."""
    SALT_PROXY_OTHER = "salt-proxy-other"
    """As ``SALT_OTHER``, through the proxy."""


TOP_LOGPROBS = 2
"""Log-probabilities per token that verification asks for: the served token's and the runner-up's."""
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
    purpose: Purpose = Purpose.LOAD
    about: str | None = None
    """The request_id of the request that this one is asked about; None for the load, a reset and a salt test."""
    owner: str | None = None
    """The request_id of another request, whose prompt stands here for the prompt of ``about``."""
    condition: Condition | None = None
    continues: str | None = None
    """The request_id of the turn before: its whole prompt and its answer come before this prompt.

    Nobody knows an answer before it is given, so the runner puts them there when it sends, and the history holds the
    whole prompt. As token ids, text or messages, whichever both prompts are. The other request must have ended.
    """
    expect_status: int | None = None
    """The HTTP status with which it must be refused; None: it must be served."""

    @property
    def of_load(self) -> bool:
        """Whether it is a request of the load, and not one by which the harness finds out more about the load."""
        return self.purpose in (Purpose.LOAD, Purpose.BACKGROUND)


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
