"""The requests that show which outputs are right and how large noise is.

Each has a ``cache_salt`` of its own, which enters the hash of every block: no prefix cache or offload tier has a block
that matches. If a deployment outlives a run, the next run needs new salts.

teacher forcing   Prompt and answer together, as token ids, with ``prompt_logprobs``: one prefill. Outputs are compared
                  with it. It reads no KV but its own: without ``kv_transfer_params`` NIXL's connector offers no token;
                  vLLM reads neither prefix cache nor connectors for a request with ``prompt_logprobs``
                  (``skip_reading_prefix_cache``); and if an engine does (0.26 was seen to ask its connectors for such a
                  prompt), no block has the request's salt.
control           The prompt again, sent to a decode server alone, which computes the prompt itself. At the load's
                  concurrency, on the server that serves the load, a control output has every harmless difference that
                  an output of the load may have from its teacher forcing, and no transferred KV: it measures noise.
                  No sampling option restricts its tokens: a forbidden token (the end token, below ``min_tokens``) would
                  look like noise.
reference         The request again, decoded by a prefill server, for outputs that teacher forcing alone cannot verify.

Forcings and references go to prefill servers, since the transfers under test filled the caches of decode servers. A
prefill server is taken to compute rightly, unless a third server is named (``Route.REFERENCE``). A wrong model on
prefill or decode alone shows nevertheless, since control outputs are decoded on decode and forced on prefill.

The counters of these requests are not judged. But salted blocks take room in the caches, so phases that depend on
cached blocks should come first.
"""

from dataclasses import replace

from harness.scenario import TOP_LOGPROBS, Endpoint, Prompt, Purpose, Request, Route, Sampling

Tokens = tuple[int, ...]


def teacher_forcing(  # noqa: PLR0913 - a forcing is what these are; keyword-only but for the tokens
    about: str, prompt: Tokens, answer: Tokens, *, name: str, salt: str, route: Route
) -> Request:
    """Prompt and answer in one prefill; ``name`` is the request's own id."""
    # One token is the fewest that vLLM generates; the prompt's log-probabilities come with it.
    sampling = Sampling(max_tokens=1, prompt_logprobs=TOP_LOGPROBS)
    return _salted(name, (*prompt, *answer), sampling, Purpose.FORCING, salt=salt, about=about, route=route)


def control(about: str, prompt: Tokens, tokens: int, *, name: str, salt: str) -> Request:
    """The prompt, sent to a decode server alone for exactly ``tokens`` output tokens."""
    sampling = Sampling(max_tokens=tokens, ignore_eos=True, logprobs=TOP_LOGPROBS)
    return _salted(name, prompt, sampling, Purpose.CONTROL, salt=salt, about=about, route=Route.DECODE)


def reference(request: Request, *, salt: str, route: Route) -> Request:
    """The request as it was sent to the proxy, sent to one server."""
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
