"""Finds token ids that prompts may contain if the harness does not have the model's configuration.

A server turns text into token ids (``POST /tokenize``). Every id up to the largest one is in the vocabulary, because
vocabularies have no gaps. The server does not report which ids are special. Special tokens are at the end of a
vocabulary, after the tokens of ordinary text, or at its beginning, where some models have a thousand of them. So the
first thousand ids are left out, or the first sixteenth of a small vocabulary.
"""

from typing import Any

import aiohttp

from harness.facts import Deployment, Role
from harness.observe.bodies import LARGEST, text_of
from harness.observe.forms import mapping

TIMEOUT = 15.0
"""Seconds for one request."""
_BYTES_PER_CHARACTER = 256
"""A generous bound for an answer: a character may be several tokens, each with an id and a text of its own."""
_LEFT_OUT = 1000
_LEAST = 64
"""Smallest usable vocabulary, in token ids; with fewer, prompts would be too similar."""
_TEXT = (
    "The river and the sea, 1234567890 houses; (a) tomorrow's weather: überraschend schön - demain il pleuvra? "
    "Congratulations, notwithstanding misunderstandings! def main(): return {'value': [0.5, None]} # TODO\n"
    "Съешь ещё этих мягких булок. 敏捷的棕色狐狸跳过了懒狗。 いろはにほへと "
    "빠른 갈색 여우 الثعلب البني السريع नमस्ते दुनिया"
)


async def tokens_that_are_safe(session: aiohttp.ClientSession, deployment: Deployment) -> dict[str, Any]:
    """Return the deployment's fields about safe token ids; empty if no server tokenizes text."""
    for server in (*deployment.of(Role.DECODE), *deployment.of(Role.PREFILL)):
        ids = await token_ids(session, server.url, server.model or deployment.model, _TEXT)
        size = max(ids, default=0) + 1
        if size >= _LEAST:
            guessed = tuple(range(min(_LEFT_OUT, size // 16)))
            partly = {"vocab_is_whole": False, "end_tokens_complete": False}
            return {"vocab_size": size, "special_token_ids": guessed, **partly}
    return {}


async def token_ids(session: aiohttp.ClientSession, url: str, model: str, text: str) -> list[int]:
    """The token ids of a text, without special tokens; empty if the server does not answer with token ids."""
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with session.post(f"{url}/tokenize", json=body, timeout=timeout, allow_redirects=False) as response:
            response.raise_for_status()
            most = LARGEST + len(text) * _BYTES_PER_CHARACTER
            ids: Any = mapping(await text_of(response, most=most)).get("tokens")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError):
        return []
    valid = isinstance(ids, list) and all(type(one) is int and 0 <= one < 2**31 for one in ids)
    return ids if valid else []
