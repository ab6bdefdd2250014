"""What the probes found in the caches, in words: one finding for each prompt, and how much was looked at."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from harness.checkers.outputs.compared import Match
from harness.checkers.outputs.evidence import OutputEvidence
from harness.checkers.outputs.probes import Damaged, cache_of
from harness.checkers.outputs.tiers import TierRead
from harness.verdict import Finding, FindingKind


def with_places(findings: Iterable[Finding], evidence: OutputEvidence, block_size: int | None) -> Iterator[Finding]:
    """Findings about outputs, with the first wrong block of each where a cache still holds it."""
    first = {one.source: one for one in reversed(evidence.damaged)}
    for finding in findings:
        damaged = first.get(finding.subject)
        place = ""
        if damaged is not None:
            place = f"; in {_called(damaged.cache)} {damaged.where(block_size)} of its prompt is the first wrong one"
        yield replace(finding, text=finding.text + place)


def in_caches(evidence: OutputEvidence, block_size: int | None) -> Iterator[Finding]:
    """Of prompts whose own answers were right; then of probes that could not be judged."""
    told = {one.request_id for one in evidence.compared if one.match is Match.MISMATCH}
    by_source: dict[str, list[Damaged]] = {}
    for damaged in evidence.damaged:
        by_source.setdefault(damaged.source, []).append(damaged)
    for source, caches in by_source.items():
        if source not in told:
            yield _finding(caches, block_size)
    for one in evidence.probed:
        if one.match is Match.UNVERIFIED:
            yield Finding(one.request_id, one.text, FindingKind.UNVERIFIED)


def _finding(caches: Sequence[Damaged], block_size: int | None) -> Finding:
    first, *others = caches
    wrong, asked = len(first.wrong), len(first.wrong) + len(first.right)
    text = (
        f"asked again through {_called(first.cache)}, {wrong} of {asked} beginnings of its prompt are answered wrong: "
        f"{first.where(block_size)} there is the first wrong one; {first.text}"
    )
    also = "".join(f"; so in {_called(other.cache)}" for other in others)
    return Finding(f"{first.source}-probe-{first.cache}", text + also, FindingKind.CACHE)


def _called(cache: str) -> str:
    server, _, tier = cache.partition("-")
    return f"{server}'s offload tier" if tier else f"{server}'s cache"


def coverage(evidence: OutputEvidence, possible: int, tiers: Sequence[TierRead]) -> Iterator[str]:
    """How much of the caches was looked at."""
    pairs = list(zip(evidence.readings, evidence.probed, strict=True))
    told = {f"{tier.route}-tier": f", of which it restored {tier.restored:,} tokens" for tier in tiers if tier.known}
    for cache in dict.fromkeys(cache_of(reading.probe) for reading in evidence.readings):
        if any(f"{tier.route}-tier" == cache and tier.known and not tier.restored for tier in tiers):
            yield f"{_called(cache)} was asked and restored nothing: nothing is known of it"
            continue
        judged = sum(one.match is not Match.UNSAMPLED for reading, one in pairs if cache_of(reading.probe) == cache)
        yield f"probed {judged:,} of {possible:,} cuts in {_called(cache)}{told.get(cache, '')}"
    for tier in tiers:
        if tier.why_not:
            yield f"{tier.route}'s offload tier was not asked ({tier.why_not})"
