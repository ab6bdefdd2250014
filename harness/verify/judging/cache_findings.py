"""What probes found in caches, and how much of the caches was probed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.facts import Deployment
from harness.scenario import Condition
from harness.verdict import Finding, FindingKind
from harness.verify.judging.compared import Match
from harness.verify.judging.evidence import OutputEvidence
from harness.verify.judging.hits import Hits, server_name
from harness.verify.judging.probes import DamagedPrompt


def with_wrong_blocks(
    findings: Iterable[Finding], evidence: OutputEvidence, block_size: int | None
) -> Iterator[Finding]:
    """The findings about outputs, each with the first wrong block of its prompt if a cache still has it."""
    first = {one.source: one for one in reversed(evidence.damaged)}
    for finding in findings:
        damaged = first.get(finding.request or "")
        if damaged is None:
            yield finding
        else:
            text = (
                f"{finding.text}; {damaged.where(block_size)} of its prompt is the first wrong one in {_cache(damaged)}"
            )
            yield replace(finding, text=text, server=damaged.server_name, block=damaged.block(block_size))


def cache_findings(deployment: Deployment, evidence: OutputEvidence, block_size: int | None) -> Iterator[Finding]:
    """Prompts that have wrong blocks in a cache although their outputs were right; then unverified probes."""
    wrong = {one.request_id for one in evidence.compared if one.match is Match.MISMATCH}
    by_source: dict[str, list[DamagedPrompt]] = {}
    for damaged in evidence.damaged:
        by_source.setdefault(damaged.source, []).append(damaged)
    for source, caches in by_source.items():
        if source not in wrong:
            yield _finding(caches, block_size)
    names = {server.name for server in deployment.servers}
    for probe, one in evidence.probed:
        if one.match is Match.UNVERIFIED:
            name = server_name(deployment, probe.operation)
            server = name if name in names else None
            yield Finding(one.request_id, one.text, FindingKind.UNVERIFIED, request=probe.request.about, server=server)


def _finding(caches: Sequence[DamagedPrompt], block_size: int | None) -> Finding:
    first, *others = caches
    wrong, probed = len(first.wrong), len(first.wrong) + len(first.right)
    text = (
        f"requested again through {_cache(first)}, {wrong} of {probed} prefixes of its prompt are answered wrong; "
        f"{first.where(block_size)} is the first wrong one there; {first.text}"
    )
    also = "".join(f"; likewise in {_cache(other)}" for other in others)
    return Finding(
        first.source,
        text + also,
        FindingKind.CACHE,
        request=first.source,
        server=first.server_name,
        block=first.block(block_size),
    )


def _cache(damaged: DamagedPrompt) -> str:
    return _cache_name(damaged.server_name or str(damaged.route), damaged.cache)


def _cache_name(server: str, cache: Condition | None) -> str:
    return f"{server}'s offload tier" if cache is Condition.OFFLOAD_TIER else f"{server}'s cache"


def probe_coverage(
    deployment: Deployment, evidence: OutputEvidence, hits: Iterable[Hits], possible: Mapping[str, int]
) -> Iterator[str]:
    """How much of each cache was probed, a line each. ``possible``: prefixes that may be in it, by server."""
    for one in hits:
        compared = _compared(deployment, evidence, one)
        probed = f"{one.asked:,} of {possible.get(one.server, one.asked):,} prompt prefixes were probed"
        left_out = f"; {one.asked - compared:,} of them had nothing to be compared with" if compared < one.asked else ""
        yield f"{_cache_name(one.server, one.cache)}: {probed}; {_shown(one, compared)}{_restored(one)}{left_out}"


def _compared(deployment: Deployment, evidence: OutputEvidence, hits: Hits) -> int:
    """How many probes of the cache had something to be compared with."""
    return sum(
        one.match is not Match.LEFT_OUT
        and probe.request.condition is hits.cache
        and server_name(deployment, probe.operation) == hits.server
        for probe, one in evidence.probed
    )


def _shown(hits: Hits, compared: int) -> str:
    """How many compared probes are shown to have hit."""
    least = max(hits.least - (hits.asked - compared), 0)
    if not least:
        return f"none of them is shown to be read from there ({hits.why or 'none had anything to be compared with'})"
    if least == hits.asked:
        return "all of them are shown to be read from there"
    anew = f" ({hits.missing:,} tokens were not there)" if hits.missing else ""
    return f"at least {least:,} of them are shown to be read from there{anew}"


def _restored(hits: Hits) -> str:
    """How many tokens an offload tier restored. Other hits were in the prefix cache, which the tier had refilled."""
    if hits.cache is not Condition.OFFLOAD_TIER:
        return ""
    if hits.restored is None:
        return "; how much the tier restored is not known"
    return f"; the tier restored {hits.restored:,} tokens" if hits.restored else "; the tier restored nothing"
