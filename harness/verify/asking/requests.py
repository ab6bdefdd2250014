"""The requests that measure what the right answers are, and how much of a difference means nothing.

Each has a ``cache_salt`` of its own. The salt goes into the hash of the first block, and so into every later block's:
no prefix cache or offload tier holds a block that matches, whoever put it there. The salt must be new for each run
against a deployment that outlives the run.

teacher forcing   Prompt and answer together, as token ids, with ``prompt_logprobs``: one prefill. It is the truth that
                  outputs are judged by, and reads no KV but its own: without ``kv_transfer_params`` NIXL's connector
                  offers no token; vLLM reads neither prefix cache nor connectors for a request with
                  ``prompt_logprobs`` (``skip_reading_prefix_cache``); and where an engine does so all the same (0.26
                  was seen to ask its connectors for such a prompt), no block is known under the request's salt.
control           The prompt again, asked of a decode server alone, which computes the prompt itself. At the load's
                  concurrency, on the server that serves the load, a control output has every harmless difference that
                  an output of the load may have from its teacher forcing, and no transferred KV. It is not judged: it
                  measures noise. Nothing shapes its answer, for a token that is forbidden (the end of an answer below
                  ``min_tokens``) would pass for noise.
reference         The request again, decoded by a prefill server, for what teacher forcing does not show.

Forcings and references go to prefill servers: a decode server's caches were filled by the transfers under test. A
prefill server is taken to compute rightly, unless a third server is named (``Route.REFERENCE``). A wrong model on
prefill or decode alone shows nevertheless, since control outputs are decoded on decode and forced on prefill.

Phases of these requests are not counted, but salted blocks take room in the caches, so phases that depend on what is
cached should come before them.
"""

from dataclasses import replace

from harness.scenario import TOP_LOGPROBS, Endpoint, Prompt, Purpose, Request, Route, Sampling

Tokens = tuple[int, ...]


def teacher_forcing(  # noqa: PLR0913 - a forcing is what these are; keyword-only but for the tokens
    about: str, prompt: Tokens, answer: Tokens, *, name: str, salt: str, route: Route
) -> Request:
    """Prompt and answer in one prefill; ``name`` is the request's own id."""
    # vLLM answers at least one token; 1 is enough to bring the prompt's log-probabilities.
    sampling = Sampling(max_tokens=1, prompt_logprobs=TOP_LOGPROBS)
    return _salted(name, (*prompt, *answer), sampling, Purpose.FORCING, salt=salt, about=about, route=route)


def control(about: str, prompt: Tokens, tokens: int, *, name: str, salt: str) -> Request:
    """The prompt asked of a decode server alone, for exactly so many tokens."""
    sampling = Sampling(max_tokens=tokens, ignore_eos=True, logprobs=TOP_LOGPROBS)
    return _salted(name, prompt, sampling, Purpose.CONTROL, salt=salt, about=about, route=Route.DECODE)


def reference(request: Request, *, salt: str, route: Route) -> Request:
    """The request as it was sent to the proxy, asked of one server."""
    logprobs = max(request.sampling.logprobs or 0, TOP_LOGPROBS)
    sampling = replace(request.sampling, prompt_logprobs=None, logprobs=logprobs)
    name, who = f"{request.request_id}-reference", request.request_id
    plain = _salted(name, request.prompt, sampling, Purpose.REFERENCE, salt=salt, about=who, route=route)
    return replace(plain, endpoint=request.endpoint)


def _salted(  # noqa: PLR0913 - a request is what these are; keyword-only from the salt on
    name: str, prompt: Prompt, sampling: Sampling, purpose: Purpose, *, salt: str, about: str, route: Route
) -> Request:
    return Request(
        name,
        prompt,
        sampling,
        route=route,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
        cache_salt=f"{salt}-{name}",
        purpose=purpose,
        about=about,
    )
