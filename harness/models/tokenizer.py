"""The canary's tokenizer: one token per known word, and one token per byte of all other text.

Rule 1. A prompt's length can be counted by eye: words of `WORDS` joined by single spaces are one token each. The
        vocabulary has each word both bare, for the start of a text, and with its leading space.
Rule 2. Any text round-trips: text that is not a known word is encoded as bytes, and all 256 bytes are tokens.
Rule 3. Encoding adds nothing: no beginning-of-text token and no prefix space.
Rule 4. The model generates only words with their leading space (see canary). So its text encodes to the ids that it
        generated, and the next turn of a chat hits the blocks of the turn before.

The tokenizer is byte-level BPE without merges: ``ignore_merges`` makes a piece that is in the vocabulary one token, and
without merges every other piece stays bytes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

VOCAB_SIZE: Final = 4096
PAD, BOS, EOS, SYSTEM, USER, ASSISTANT, END = range(7)
SPECIAL_TOKENS: Final = ("<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

_COMMON = """
a the of and to in is it you that he was for on are with as his they be at one have this from or had by hot
but some what there we can out other were all your when up use word how said an each she which do their time
if will way about many then them would write like so these her long make thing see him two has look more day
could go come did my sound no most number who over know water than call first people may down side been now
find any new work part take get place made live where after back little only round man year came show every
good me give our under name very through just form much great think say help low line before turn cause same
mean move right boy old too does tell sentence set three want air well also play small end put home read hand
port large spell add even land here must big high such follow act why ask men change went light kind off need
house picture try us again animal point mother world near build self earth father head stand own page should
country found answer school grow study still learn plant cover food sun four thought let keep eye never last
door between city tree cross since hard start might story saw far sea draw left late run while press close
night real life few stop open seem together next white children begin got walk example ease paper often always
music those both mark book letter until mile river car feet care second group carry took rain eat room friend
began idea fish mountain north once base hear horse cut sure watch color face wood main enough plain girl usual
young ready above ever red list though feel talk bird soon body dog family direct leave song measure state
product black short class wind question happen complete ship area half rock order fire south problem piece
told knew pass farm top whole king size heard best hour better true during hundred am remember step early hold
west ground interest reach fast five sing listen six table travel less morning ten simple several toward war
lay against pattern slow center love person money serve appear road map science rule govern pull cold notice
voice fall power town fine certain fly unit lead cry dark machine note wait plan figure star box noun field
rest correct able pound done beauty drive stood contain front teach week final gave green quick develop ocean
warm free minute strong special mind behind clear tail produce fact street inch lot nothing course stay wheel
full force blue object decide surface deep moon island foot yet busy test record boat common gold possible
""".split()  # noqa: SIM905 - a page of quoted words is no easier to read

_PIECES: Final = r" ?[\p{L}\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""A piece is a word or a run of other characters, each with at most one leading space, or a run of whitespace."""

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('The canary knows the roles system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Adds two tokens to each message, and one token that opens the answer."""


def _words() -> tuple[str, ...]:
    """List ordinary words, then ``w0``, ``w1``, … until the vocabulary is full. Bare "a" is already a byte token."""
    room = (VOCAB_SIZE - len(SPECIAL_TOKENS) - 256 + 1) // 2
    common = tuple(dict.fromkeys(_COMMON))
    return common + tuple(f"w{n}" for n in range(room - len(common)))


def _byte_signs() -> tuple[str, ...]:
    """List the printable characters that stand for the bytes in byte-level BPE files, by byte value."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in shown else next(spare)) for byte in range(256))


WORDS: Final = _words()
"""The words that are one token each, both with and without a leading space."""

_SPACE: Final = _byte_signs()[0x20]


def _tokens() -> Iterator[str]:
    yield from SPECIAL_TOKENS
    yield from _byte_signs()
    yield from (word for word in WORDS if len(word) > 1)
    yield from (_SPACE + word for word in WORDS)


FIRST_GENERATED: Final = VOCAB_SIZE - len(WORDS)
"""The first id of the words with a leading space, which are the only tokens that the canary generates."""


def vocabulary() -> dict[str, int]:
    """Map the `VOCAB_SIZE` tokens to ids: special tokens, bytes, bare words, words with a leading space."""
    return {token: index for index, token in enumerate(_tokens())}


def write_tokenizer(directory: Path, *, max_model_len: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into an existing ``directory``."""
    named = {"pad_token": SPECIAL_TOKENS[PAD], "bos_token": SPECIAL_TOKENS[BOS], "eos_token": SPECIAL_TOKENS[EOS]}
    config = named | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_model_len,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
    _write(directory / "tokenizer.json", _tokenizer())
    _write(directory / "tokenizer_config.json", config)
    _write(directory / "special_tokens_map.json", named)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizer() -> dict[str, Any]:
    """Build tokenizer.json as the ``tokenizers`` library documents it."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _PIECES}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(index, token) for index, token in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": _model(),
    }


def _model() -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": True,
        "vocab": vocabulary(),
        "merges": [],
    }


def _special(index: int, token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": token, **flags, "special": True}
