"""What the probes found in the caches, in words: one finding for each prompt, and how much was looked at."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.history import Operation
from harness.scenario import Condition
from harness.verdict import Finding, FindingKind
from harness.verify.judging.compared import Match
from harness.verify.judging.evidence import OutputEvidence
from harness.verify.judging.hits import Hits
from harness.verify.judging.probes import Damaged


def with_places(findings: Iterable[Finding], evidence: OutputEvidence, block_size: int | None) -> Iterator[Finding]:
    """Findings about outputs, with the first wrong block of each where a cache still holds it."""
    first = {one.source: one for one in reversed(evidence.damaged)}
    for finding in findings:
        damaged = first.get(finding.subject)
        if damaged is None:
            yield finding
        else:
            place = f"; in {_called(damaged)} {damaged.where(block_size)} of its prompt is the first wrong one"
            yield replace(
                finding, text=finding.text + place, server=damaged.server_name, block=damaged.block(block_size)
            )


def in_caches(evidence: OutputEvidence, block_size: int | None) -> Iterator[Finding]:
    """Of prompts whose own answers were right; then of probes that could not be judged."""
    told = {one.request_id for one in evidence.compared if one.match is Match.MISMATCH}
    by_source: dict[str, list[Damaged]] = {}
    for damaged in evidence.damaged:
        by_source.setdefault(damaged.source, []).append(damaged)
    for source, caches in by_source.items():
        if source not in told:
            yield _finding(caches, block_size)
    for reading, one in zip(evidence.readings, evidence.probed, strict=True):
        if one.match is Match.UNVERIFIED:
            about = reading.probe.request.about
            yield Finding(one.request_id, one.text, FindingKind.UNVERIFIED, request=about)


def _finding(caches: Sequence[Damaged], block_size: int | None) -> Finding:
    first, *others = caches
    wrong, asked = len(first.wrong), len(first.wrong) + len(first.right)
    text = (
        f"asked again through {_called(first)}, {wrong} of {asked} prefixes of its prompt are answered wrong: "
        f"{first.where(block_size)} there is the first wrong one; {first.text}"
    )
    also = "".join(f"; so in {_called(other)}" for other in others)
    return Finding(
        first.source,
        text + also,
        FindingKind.CACHE,
        request=first.source,
        server=first.server_name,
        block=first.block(block_size),
    )


def _called(damaged: Damaged) -> str:
    return _cache_called(damaged.server_name or str(damaged.route), damaged.cache)


def _cache_called(server: str, cache: Condition | None) -> str:
    return f"{server}'s offload tier" if cache is Condition.OFFLOAD_TIER else f"{server}'s cache"


def coverage(evidence: OutputEvidence, hits: Iterable[Hits], possible: Mapping[str, int]) -> Iterator[str]:
    """How much of each cache was looked at; ``possible``: prefixes that may be in it, by server."""
    for one in hits:
        judged = _judged(evidence, one)
        cache = _cache_called(one.server, one.cache)
        asked = f"asked {cache} for {one.asked:,} of {possible.get(one.server, one.asked):,} prefixes of prompts"
        unjudged = f"; {one.asked - judged:,} of them nothing could judge" if judged < one.asked else ""
        yield f"{asked}: {_shown(one, judged)}{_of_tier(one)}{unjudged}"


def _judged(evidence: OutputEvidence, hits: Hits) -> int:
    """Probes of the cache whose answers could be judged."""
    pairs = zip(evidence.readings, evidence.probed, strict=True)
    return sum(
        one.match is not Match.UNSAMPLED
        and reading.probe.request.condition is hits.cache
        and _is_on(reading.probe, hits)
        for reading, one in pairs
    )


def _is_on(probe: Operation, hits: Hits) -> bool:
    index = probe.request.server
    return index is None or hits.server in (str(probe.request.route), f"{probe.request.route}-{index}")


def _shown(hits: Hits, judged: int) -> str:
    """What is shown of their hits; those that could not be judged are taken off."""
    least = max(hits.least - (hits.asked - judged), 0)
    if not least:
        return f"none of them is shown to be read from there ({hits.why or 'none could be judged'})"
    if least == hits.asked:
        return "all of them are shown to be read from there"
    anew = f" ({hits.missing:,} tokens were not there)" if hits.missing else ""
    return f"at least {least:,} of them are shown to be read from there{anew}"


def _of_tier(hits: Hits) -> str:
    """What a tier gave back: the rest was found in the prefix cache, which that filled."""
    if hits.cache is not Condition.OFFLOAD_TIER:
        return ""
    if hits.restored is None:
        return "; how much it restored is not known"
    return f"; it restored {hits.restored:,} tokens" if hits.restored else "; it restored nothing"
