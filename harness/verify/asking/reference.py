"""What the right answers are, and how much of a difference means nothing: requests that ask again, without transfer.

Three kinds, all of which name what they are for in ``Request.about``, and all under a ``cache_salt`` of their own: it
goes into the hash of the first block, and so into every block's after it, so that nothing in a prefix cache or an
offload tier can match, whoever put it there. A salt must be new for each run against a deployment that outlives the
run.

teacher forcing   Prompt and answer together, as token ids, with ``prompt_logprobs``: one prefill. It is the truth that
                  outputs are judged by. No KV but its own is in it: without ``kv_transfer_params`` NIXL's connector
                  offers no token; a request for ``prompt_logprobs`` reads neither prefix cache nor any connector in
                  vLLM (``skip_reading_prefix_cache``); and where an engine does otherwise (0.26 was seen to ask its
                  connectors for such a prompt), no block anywhere has a name under the request's salt.
control           The request again, asked of a decode server alone, which computes the prompt itself. Served at the
                  load's concurrency by the server that serves the load, it has every harmless difference that a served
                  output may have from its teacher forcing, and no transferred KV. Judged by nobody: it measures noise.
reference         The request again, decoded by a prefill server: for comparison token by token where no noise is
                  measured.

Forcings and references go to prefill servers: a decode server's caches were filled by the transfers under test, and
what a broken transfer left there should not be a hash's distance from the truth. That P itself computes rightly is
taken for granted, unless a third server is named (``Route.REFERENCE``); a wrong model on P or D alone shows, since the
control arm decodes on D and is forced on P: they disagree, and the noise has no floor.

No phase of these is counted: their traffic is nobody's question, and salted blocks still take room in the caches, so a
phase that depends on what is cached should come before them.
"""

from dataclasses import replace

from harness.scenario import TOP_LOGPROBS, Condition, Endpoint, Purpose, Request, Route, Sampling

CONTROL_OUTPUT = 8
"""Tokens of a control output at least: noise is measured in tokens, and answers of one would need hundreds of them."""


def control(
    request: Request,
    *,
    salt: str,
    turn: int = 0,
    route: Route = Route.DECODE,
    condition: Condition | None = None,
) -> Request:
    """The request asked of a decode server alone, CONTROL_OUTPUT tokens at least; ``turn`` tells repetitions apart."""
    again = _again(request, f"control{turn}", route, salt)
    sampling = replace(
        request.sampling,
        n=None,
        logprobs=max(request.sampling.logprobs or 0, TOP_LOGPROBS),
        max_tokens=max(request.sampling.max_tokens, CONTROL_OUTPUT),
    )
    return replace(again, sampling=sampling, stream=False, condition=condition)


def teacher_forcing(  # noqa: PLR0913 - a forcing is what these say; keyword-only but for the tokens
    about: str, prompt: tuple[int, ...], output: tuple[int, ...], *, name: str, salt: str, route: Route
) -> Request:
    """Prompt and output in one prefill; ``name`` is the request's own id."""
    return Request(
        name,
        (*prompt, *output),
        # vLLM answers at least one token; 1 is enough to bring the prompt's log-probabilities.
        Sampling(max_tokens=1, prompt_logprobs=TOP_LOGPROBS),
        route=route,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
        cache_salt=f"{salt}-{name}",
        purpose=Purpose.FORCING,
        about=about,
    )


def _again(request: Request, kind: str, route: Route, salt: str) -> Request:
    name = f"{request.request_id}-{kind}"
    return replace(
        request,
        request_id=name,
        route=route,
        server=None,
        cache_salt=f"{salt}-{name}",
        purpose=Purpose.CONTROL,
        about=request.request_id,
    )
