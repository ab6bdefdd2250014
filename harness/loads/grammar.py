"""A small grammar of English: varied paragraphs and questions, made from a seed. Pure.

Rule 1. A paragraph is a heading with its number, which no other paragraph of a load has, and then sentences.
Rule 2. A sentence is one of a few patterns, whose slots are filled with words of one kind each. Nothing is remembered
        from sentence to sentence, except the place that the paragraph is about.
Rule 3. A question is about the place too, and needs no knowledge beyond the paragraph.

The patterns and words were written for this module. There are enough of them that two sentences are seldom equal.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_WORDS: Final = {
    "person": "the baker|a young teacher|the ferry pilot|my neighbour|the old gardener|a visiting engineer|"
    "the clerk|our guide|the night guard|a student|the carpenter|the doctor|an artist|the postman|"
    "two brothers",
    "does": "repaired|counted|described|carried|painted|measured|sold|borrowed|hid|photographed|cleaned|forgot|"
    "inspected|wrapped|wrote about",
    "thing": "a wooden boat|the town clock|several maps|a basket of pears|the long bridge|an empty letter box|"
    "three lanterns|the water pump|a stone wall|a set of keys|the library roof|a blue bicycle|"
    "the harvest|an unfinished report|the school piano",
    "quality": "narrow|quiet|crowded|sunny|forgotten|steep|friendly|cold|well kept|green|windy|modest",
    "part": "market|harbour|station|valley|square|river bank|workshop|orchard|main road|school|hill|old mill",
    "when": "before sunrise|in early spring|on the second day|after a long winter|every other week|"
    "late in the evening|during the storm|shortly before noon|since last year|at harvest time",
    "why": "because the road was closed|so that nobody had to wait|although it rained|"
    "since the price had doubled|while the others slept|in order to save fuel|as the council had asked|"
    "even though few people noticed|because the wind had turned|until the tools were returned",
    "fact": "costs less than people think|needs care every spring|was built by hand|"
    "attracts visitors from the coast|has changed hands many times|is older than the church|"
    "was measured twice|works only in dry weather|holds enough water for a month|belongs to everyone",
    "ask": "what should the council do next|which of these events came first|who would notice the change|"
    "how could the work be finished sooner|why did the people act in this way|"
    "what would you change, and why|what is likely to happen in the coming year|which detail matters most",
}
_KINDS: Final[Mapping[str, Sequence[str]]] = {kind: words.split("|") for kind, words in _WORDS.items()}
_SENTENCES: Final = (
    "{when}, {person} {does} {thing} {why}.",
    "The {part} of {place} is {quality}, and it {fact}.",
    "{person} {does} {thing} near the {quality} {part}.",
    "People in {place} say that the {part} {fact}.",
    "There were {number} visitors {when}, {why}.",
    "{person} told us that the {part}, which is {quality}, {fact}.",
    "When {person} {does} {thing}, {person} {does} {thing} as well.",
    "It took {number} days: {person} {does} {thing}, and the {part} stayed {quality}.",
)
_QUESTIONS: Final = (
    " In view of all this, {ask}?",
    " Read the notes about {place} once more: {ask}?",
    " In a few sentences, {ask}?",
    " If you lived in {place}, {ask}?",
)
_TOWNS: Final = (
    "Al|Bren|Car|Dor|Eld|Fen|Gar|Hol|Ilm|Kes|Lan|Mor|Nor|Ost|Pel|Ran|Sel|Tor|Ul|Wen",
    "burg|by|dale|field|ford|gate|ham|haven|mere|mouth|port|stead|ton|vik|wick|worth",
)
"""Beginnings and endings of names."""


def paragraph(number: int, words: int, rng: random.Random) -> str:
    """A text of at least so many words; ``number``: the paragraph's own."""
    place = _place(rng)
    return " ".join(_pieces(f"Note {number} about {place}.", place, words, rng))


def question(rng: random.Random) -> str:
    """A question to put after a paragraph, with a space before it."""
    return _filled(rng.choice(_QUESTIONS), "the town", rng)


def _pieces(heading: str, place: str, words: int, rng: random.Random) -> Iterator[str]:
    yield heading
    left = words - len(heading.split())
    while left > 0:
        sentence = _filled(rng.choice(_SENTENCES), place, rng)
        left -= len(sentence.split())
        yield sentence[0].upper() + sentence[1:]


def _filled(pattern: str, place: str, rng: random.Random) -> str:
    def word(slot: re.Match[str]) -> str:
        kind = slot[1]
        if kind == "place":
            return place
        return str(rng.randint(2, 990)) if kind == "number" else rng.choice(_KINDS[kind])

    return re.sub(r"\{(\w+)\}", word, pattern)


def _place(rng: random.Random) -> str:
    return "".join(rng.choice(parts.split("|")) for parts in _TOWNS)
