"""Token ids that prompts may be made of where the model's configuration is not known here.

A server turns text into token ids (``POST /tokenize``): every id up to the largest of them is in its vocabulary, for
vocabularies have no holes. Which of those are special it does not tell. Special tokens stand at the end of a
vocabulary, beyond what ordinary text is made of, or at its beginning: of large vocabularies the first thousand are left
out (some have so many special ones there), of small ones the first sixteenth.
"""

from typing import Any

import aiohttp

from harness.facts import Deployment, Role
from harness.observe.forms import mapping

TIMEOUT = 15.0
"""Seconds."""
_LEFT_OUT = 1000
_LEAST = 64
"""Token ids: with fewer, prompts would be too much alike."""
_TEXT = (
    "The river and the sea, 1234567890 houses; (a) tomorrow's weather: überraschend schön - demain il pleuvra? "
    "Congratulations, notwithstanding misunderstandings! def main(): return {'value': [0.5, None]} # TODO\n"
    "Съешь ещё этих мягких булок. 敏捷的棕色狐狸跳过了懒狗。 いろはにほへと "
    "빠른 갈색 여우 الثعلب البني السريع नमस्ते दुनिया"
)


async def tokens_that_are_safe(session: aiohttp.ClientSession, deployment: Deployment) -> dict[str, Any]:
    """Fields of a deployment that say which token ids are safe; empty where no server tells."""
    for server in (*deployment.of(Role.DECODE), *deployment.of(Role.PREFILL)):
        ids = await _tokenized(session, server.url, server.model or deployment.model)
        size = max(ids, default=0) + 1
        if size >= _LEAST:
            guessed = tuple(range(min(_LEFT_OUT, size // 16)))
            partly = {"vocab_is_whole": False, "end_tokens_complete": False}
            return {"vocab_size": size, "special_token_ids": guessed, **partly}
    return {}


async def _tokenized(session: aiohttp.ClientSession, url: str, model: str) -> list[int]:
    body = {"model": model, "prompt": _TEXT, "add_special_tokens": False}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with session.post(f"{url}/tokenize", json=body, timeout=timeout) as response:
            response.raise_for_status()
            told = mapping(await response.text()).get("tokens")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError):
        return []
    ids = told if isinstance(told, list) else []
    return ids if all(type(one) is int and 0 <= one < 2**31 for one in ids) else []
