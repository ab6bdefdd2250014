"""The tokenizer, which turns any text into token ids and back without loss.

A word such as `` w300`` is one token; all other text is one token per byte of UTF-8. So a prompt of words has a
predictable length, and any text can be a prompt.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

EOS = 2
_ROLES = {"user": 3, "assistant": 4, "system": 5, "tool": 7}
_END_OF_TURN = 6
_FIRST_BYTE = 8
FIRST_WORD = _FIRST_BYTE + 256
"""The lowest word token; a vocabulary must be larger than this."""
_WORD = re.compile(rb" w([1-9][0-9]*)(?![0-9])")
_SPECIAL = {0: "<pad>", 1: "<s>", EOS: "</s>", 3: "<user>", 4: "<assistant>", 5: "<system>", 6: "<end>", 7: "<tool>"}


class Tokenizer:
    """The tokenizer of a vocabulary of ``vocab_size`` tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        """Encode a text without adding special tokens."""
        raw, tokens, start = text.encode(), [], 0
        for match in _WORD.finditer(raw):
            word = int(match[1])
            if FIRST_WORD <= word < self.vocab_size:
                tokens += [_FIRST_BYTE + byte for byte in raw[start : match.start()]]
                tokens.append(word)
                start = match.end()
        return tokens + [_FIRST_BYTE + byte for byte in raw[start:]]

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode token ids, skipping special tokens."""
        return b"".join(map(_bytes_of, tokens)).decode(errors="replace")

    def spell(self, token: int) -> str:
        """Spell one token as text, special tokens included, as in the names of log-probabilities."""
        return _spelled(token)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Encode a conversation with the chat template, up to the start of the assistant's turn."""
        tokens: list[int] = []
        for message in messages:
            role = _ROLES.get(str(message.get("role")), _ROLES["user"])
            tokens += [role, *self.encode(_content(message.get("content"))), _END_OF_TURN]
        return [*tokens, _ROLES["assistant"]]


# Answers with log-probabilities spell the same few thousand tokens again and again.
@cache
def _spelled(token: int) -> str:
    return _SPECIAL.get(token) or _bytes_of(token).decode(errors="replace")


def _bytes_of(token: int) -> bytes:
    if token < _FIRST_BYTE:
        return b""
    if token < FIRST_WORD:
        return bytes((token - _FIRST_BYTE,))
    return b" w%d" % token


def _content(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)
