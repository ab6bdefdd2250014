"""Learns a deployment's facts from its servers and from the model's files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from harness.deploy.target import Target
from harness.errors import ModelNotFound
from harness.facts import Deployment
from harness.models import ModelFacts, read_config, read_model
from harness.observe.server_info import learn
from harness.observe.vocabulary import tokens_that_are_safe


async def learned_facts(
    target: Target, prefill: tuple[str, ...], decode: tuple[str, ...], proxy_url: str | None
) -> Deployment:
    """The deployment of servers at these URLs, as far as they and the model's files tell.

    Raises UsageError if a server does not answer as one, and ModelNotFound as :func:`known_model`.
    """
    async with aiohttp.ClientSession(headers=target.headers) as session:
        learned = await learn(session, prefill_urls=prefill, decode_urls=decode, proxy_url=proxy_url)
        deployment = learned.deployment
        named = replace(
            deployment,
            model=target.served_model_name or deployment.model,
            model_path=target.model or deployment.model_path,
        )
        if target.kv_cache_dtype is not None:
            named = named.with_servers(kv_dtype=target.kv_cache_dtype)
        known = with_model(named, known_model(named, target.model, learned.config))
        if known.vocab_size is not None:
            return known
        return replace(known, **await tokens_that_are_safe(session, named))


def known_model(deployment: Deployment, wanted: str | None, reported: Mapping[str, Any] | None) -> ModelFacts | None:
    """The model's facts, from its files, else from the configuration that a server ``reported``; None without either.

    ``wanted``: the user's ``--model``.

    Raises ModelNotFound if ``wanted`` is a path without a model.
    """
    dtypes = [server.kv_dtype for server in deployment.servers]
    kv_dtype = None if None in dtypes else dtypes[0]
    try:
        return read_model(deployment.model_path or "", kv_dtype=kv_dtype)
    except ModelNotFound:
        # The servers may know a hub name that is unknown here.
        if wanted is not None and looks_like_a_path(wanted):
            raise
    return None if reported is None else read_config(reported, kv_dtype=kv_dtype)


def with_model(deployment: Deployment, model: ModelFacts | None) -> Deployment:
    """The deployment with the model's facts; without a model, they stay unknown."""
    if model is None:
        name = deployment.model_path or deployment.model
        why = f"the configuration of the model {name} cannot be read here (--model can give its directory)"
        return replace(deployment, geometry=None, geometry_unknown=why, cache_rules_unknown=why)
    # vLLM serves a 16-bit checkpoint as it is, and casts a float32 checkpoint to a dtype that suits the device: the
    # dtype of its KV cache is certain only if the servers report it.
    reported = all(server.kv_dtype is not None for server in deployment.servers)
    certain = reported or model.dtype in ("bfloat16", "float16")
    return replace(
        deployment,
        geometry=model.geometry if certain else None,
        geometry_unknown=model.geometry_unknown or ("" if certain else "the servers do not report their KV dtype"),
        cache_rules_unknown=model.cache_rules_unknown,
        vocab_size=model.vocab_size,
        special_token_ids=model.special_token_ids,
        end_tokens_complete=model.generation_defaults,
    )


def looks_like_a_path(model: str) -> bool:
    """Whether this is a path. A hub name is at most ``owner/name``, and the engine itself fetches the model."""
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1
