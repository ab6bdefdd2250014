"""Scenarios: what to send. A scenario consists of phases, a phase of requests. Frozen data without behaviour.

A *phase* is the unit of judgement: the counters of all servers are read before it and when it has settled after it, and
their growth is predicted for exactly its requests. Requests of one phase may overlap, up to its concurrency; requests
of different phases never do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.deferred import Deferred


class Route(StrEnum):
    """Where a request is sent."""

    PROXY = "proxy"
    """Through the proxy: prefill, KV transfer, decode. The path under test."""
    PREFILL = "prefill"
    """To a prefill server alone, without transfer parameters."""
    DECODE = "decode"
    """To a decode server alone, without transfer parameters."""
    REFERENCE = "reference"
    """To a server of the same model outside the deployment, whose answers count as right."""


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
"""Empties the prefix cache; served in vLLM's development mode (``VLLM_SERVER_DEV_MODE=1``)."""


class Purpose(StrEnum):
    """What a request is for. The *subject* of a request is the request that it verifies (:attr:`Request.about`)."""

    LOAD = "load"
    """A request whose service is tested."""
    BACKGROUND = "background"
    """A request whose service is tested, and which keeps the servers busy beside a workload's own requests."""
    REFERENCE = "reference"
    """The subject's prompt without KV transfer. The answer counts as right."""
    CONTROL = "control"
    """The subject's prompt on a decode server alone. The answer shows how large differences by noise are."""
    FORCING = "forcing"
    """Teacher forcing: the subject's prompt and answer in one prefill. The log-probabilities show whether the answer
    fits the prompt. If the request has an ``owner``, the owner's prompt replaces the subject's."""
    PROBE = "probe"
    """A prefix of the subject's prompt, answered from a cache that holds the prefix's blocks."""
    OWNER_TEST = "owner-test"
    """The prompt of ``owner`` with the last token of the subject's prompt. If the answer begins like the subject's
    answer, the subject was answered from the owner's KV. Without an ``owner``: the whole blocks of the subject's prompt
    and one token more, answered by the decode server that has these blocks in its prefix cache. If the ``owner`` is the
    request whose blocks the subject asks for: the same prompt, answered by a prefill server."""
    RETRY = "retry"
    """The subject sent again by the same path, to see whether its answer is wrong again."""
    RESET = "reset"
    """Empties the server's prefix cache and leaves its offload tier unchanged (``RESET_PATH``)."""
    SALT_TEST = "salt-test"
    """A prompt under one of two ``cache_salt``s, to see whether the server keeps the two apart."""


class Condition(StrEnum):
    """The condition under which a request is sent, for purposes that have several."""

    SUSPECT = "suspect"
    """Control or teacher forcing: the subject's answer looked wrong or strange. The subjects of others are drawn at
    random."""
    PROMPT_END = "prompt-end"
    """Teacher forcing: the subject's answer under the end of the owner's prompt alone. If the owner is the subject, or
    the request that the subject is about, it is the subject's own prompt."""
    PREFIX_CACHE = "prefix-cache"
    """Probe of a server's prefix cache."""
    OFFLOAD_TIER = "offload-tier"
    """Probe of a server's offload tier: the prefix cache was emptied before."""
    UNDER_LOAD = "under-load"
    """Retry with as many requests in flight as in the load."""
    ALONE = "alone"
    """Retry with no other request in flight."""
    SALT_FIRST = "salt-first"
    """Salt test: the first request. The next three have the same prompt and the same salt."""
    SALT_AGAIN = "salt-again"
    SALT_COUNTED = "salt-counted"
    """The servers' counters are read before and after."""
    SALT_FORCED = "salt-forced"
    """With ``prompt_logprobs``, as in teacher forcing."""
    SALT_OTHER = "salt-other"
    """The same prompt under another salt."""
    SALT_PROXY = "salt-proxy"
    """As ``SALT_FIRST``, through the proxy."""
    SALT_PROXY_OTHER = "salt-proxy-other"
    """As ``SALT_OTHER``, through the proxy."""


class Moment(StrEnum):
    """When a client leaves before the end of its answer: it closes the connection."""

    FIRST_TOKEN = "first-token"  # noqa: S105 - the moment before a token of the output, not a secret
    """While its request waits for its first token, at a moment between the sending and the usual time of that token."""
    TRANSFER = "transfer"
    """While decode fetches the KV: between the usual times of prefill's answer and of the first token."""
    STREAM = "stream"
    """When a number of tokens has arrived."""


class Altered(StrEnum):
    """How a reference to KV on a prefill server is altered before a decode server gets it.

    A reference is vLLM's ``kv_transfer_params``. What is not named here stays as the prefill server gave it.
    """

    UNKNOWN_REQUEST = "unknown-request"
    """It names a request that the prefill server never had."""
    UNKNOWN_ENGINE = "unknown-engine"
    """It names an engine that does not exist, at the address of the prefill server."""
    OTHER_HOST = "other-host"
    """It names an engine that does not exist, on another host, where nothing listens."""
    OTHER_PORT = "other-port"
    """It names an engine that does not exist, on a port where nothing listens."""
    OUT_OF_RANGE = "out-of-range"
    """Its block ids are larger than any that the prefill server has."""
    NEGATIVE = "negative"
    """Its block ids are below zero."""
    TOO_FEW = "too-few"
    """The last block is left out."""
    TOO_MANY = "too-many"
    """The first block follows the last one once more."""
    REORDERED = "reordered"
    """The blocks are in the opposite order."""
    HUGE = "huge"
    """The blocks are repeated ten thousand times, in front of themselves."""
    NO_BLOCKS = "no-blocks"
    """The list of block ids of each KV cache group is empty."""
    NO_GROUPS = "no-groups"
    """There is no KV cache group at all: an empty list."""
    NULL_BLOCKS = "null-blocks"
    """``null`` instead of block ids."""
    TEXT_BLOCKS = "text-blocks"
    """A text instead of lists of block ids."""
    TEXT_IDS = "text-ids"
    """Each block id is a text with its digits."""
    FRACTIONS = "fractions"
    """Each block id is larger by a half."""
    OTHER_TP = "other-tp"
    """It says that the prefill server has twice as many tensor-parallel ranks."""
    TEXT_PORT = "text-port"
    """A word instead of the port, and an engine that does not exist."""
    LACKS_REQUEST = "lacks-request"
    """The name of the request on the prefill server is left out."""
    TEXT = "text"
    """A text instead of an object."""
    SYNTHETIC = "synthetic"
    """All of it is made up: engine, request, address and blocks."""


TOP_LOGPROBS = 2
"""Log-probabilities per token that verification asks for: those of the served token and of the runner-up."""
LOAD_LOGPROBS = 5
"""Log-probabilities per token that requests of the load ask for. Prefill and decode server both report those of the
first output token, and their differences show whether decode read the KV that prefill computed. On two H100s in
bfloat16, five of them told nearly as much about a first token as twenty: 29 of 32 damaged requests were seen instead of
31 (random weights, K and V scaled by 1 %), and 25 of 33 instead of 30 (SmolLM2-135M, one block of another request).
vLLM serves 20 unless started with a smaller ``--max-logprobs``."""
Prompt = tuple[int, ...] | str | tuple[Message, ...]
"""Token ids, text, or a conversation."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters, greedy by default; named as in the OpenAI API and in vLLM. None: not sent."""

    max_tokens: int = 20
    min_tokens: int | None = None
    ignore_eos: bool = False
    temperature: float = 0.0
    seed: int | None = None
    """Used if the temperature is above 0."""
    n: int | None = None
    stop: tuple[str, ...] | None = None
    logprobs: int | None = None
    """Alternatives per output token; a greedy token is the first of them, so the margin to the second needs 2."""
    prompt_logprobs: int | None = None
    """Alternatives per prompt token. vLLM reads no cache and no connector for a request with this parameter."""
    echo: bool | None = None


@dataclass(frozen=True, slots=True)
class Request(Deferred):
    """One request. ``request_id`` is unique in a run and travels as X-Request-Id."""

    request_id: str
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    route: Route = Route.PROXY
    server: int | None = None
    """Index of the server among those of the route; None: any (the proxy's choice, or round robin)."""
    endpoint: Endpoint = Endpoint.COMPLETIONS
    stream: bool = True
    cache_salt: str | None = None
    """Isolates the request in every prefix cache and offload tier (vLLM hashes the salt into the first block). Some
    gateways drop salts and some tiers ignore them: a run tests this before it relies on salts."""
    purpose: Purpose = Purpose.LOAD
    about: str | None = None
    """The request_id of the subject, see :class:`Purpose`; None for the load, a reset and a salt test."""
    owner: str | None = None
    """The request_id of another request, whose prompt is used in place of the subject's."""
    condition: Condition | None = None
    continues: str | None = None
    """The request_id of the turn before, which must have ended. When the runner sends the request, it puts that turn's
    whole prompt and answer before this prompt; the history holds the whole prompt. Both prompts must be of the same
    kind: token ids, text or messages."""
    expect_status: int | None = None
    """The HTTP status with which the request must be refused; None: it must be served."""
    leaves: Moment | None = None
    """When the client is to close the connection, although it has not the whole answer; None: it waits for the end."""
    leaves_after: float = 0.0
    """``STREAM``: after so many events of the stream, each of which has a token. Other moments: at this share of the
    time that is meant, 0 to 1."""
    holds: bool = False
    """To a prefill server: whether it is to hold the prompt's KV for a decode server and to answer with a reference to
    it, as a proxy asks it to. Not streamed."""
    reference_of: str | None = None
    """To a decode server: the request_id of a request that ``holds`` and has ended, whose reference the decode server
    gets. The runner puts the reference into ``reference`` when it sends the request."""
    altered: Altered | None = None
    """How the reference is altered before it is sent; None: it is sent as it was given."""
    reference: str | None = None
    """The ``kv_transfer_params`` that the request is sent with, as JSON."""
    may_be_refused: bool = False
    """Whether a clear error is right too: a status other than 200, or an error inside the answer. A wrong output or no
    end of the answer never is."""
    deadline: float | None = None
    """Seconds from sending the request to the end of its answer, if less than other requests may take."""

    @property
    def of_load(self) -> bool:
        """Whether this is a request of the load; the harness sends other requests to verify the load."""
        return self.purpose in (Purpose.LOAD, Purpose.BACKGROUND)


@dataclass(frozen=True, slots=True)
class Phase:
    """Requests that may overlap, up to ``concurrency`` at a time.

    ``counted``: the servers' counters are read before and after the phase, and judged.
    ``watched``: they are read but not judged.
    """

    name: str
    requests: tuple[Request, ...]
    concurrency: int = 1
    counted: bool = True
    watched: bool = False
    background: tuple[Request, ...] = ()
    """Requests in flight beside ``requests``, ``background_concurrency`` at a time, until all of ``requests`` have
    ended. Background requests that were sent are judged like ``requests``. The others are never sent nor verified."""
    background_concurrency: int = 0
    due: tuple[float, ...] = ()
    """Open loop: when requests are sent, in seconds after the first of them may be sent, never falling; one for each of
    ``requests`` without a think time, in their order. Empty: a request is sent when another one has ended."""
    think_times: Mapping[str, float] = field(default_factory=dict)
    """Sessions: seconds between the end of the turn before and the sending of the next turn, by the next turn's
    request_id. Such a request continues a request of this phase. A session counts as one towards ``concurrency`` from
    the sending of its first turn to the end of its last turn."""
    faulted: bool = False
    """Whether the run's faults are caused during this phase."""
    seconds: float | None = None
    """None of ``requests`` is sent later than so many seconds after the phase began; those in flight then are waited
    for. The others are not recorded as sent. None: no limit. Faults that take turns extend it until they are over."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Phases that run one after another. ``purpose`` says which bug the scenario looks for."""

    name: str
    purpose: str
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a scenario is to bring about in a deployment. If it did not occur, the scenario has tested nothing."""

    counters: tuple[str, ...] = ()
    """Counters, such as ``preemptions``, each of which must have grown on some server."""
    waits: float = 0.0
    """Seconds for which a request must have waited for its first token after prefill had answered; 0: none must."""
