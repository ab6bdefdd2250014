"""Whether every verified output is the one that its prompt has without KV transfer.

Outputs are compared with their teacher forcing, within the noise that control outputs and outputs drawn at random show
(forcing.py, floor.py, compare_forced.py). Doubtful outputs are listed in a note and do not affect the verdict. If a run
has only references, tokens must be equal (compare_reference.py). The verdict is unknown if the verification of an
output failed, or if no output was verified. Outputs that a policy left out (``--verify sample:N``, ``budget:10%``) are
counted as unverified and reported, but do not affect the verdict. Answers that ended early are verified as far as they
came (partial.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.facts import Deployment
from harness.history import History, NoiseMeasured
from harness.scenario import Condition
from harness.verdict import Check, Finding, FindingKind, Outputs, Verdict
from harness.verify.judging.cache_findings import cache_findings, probe_coverage, with_wrong_blocks
from harness.verify.judging.compared import Match
from harness.verify.judging.evidence import OutputEvidence, look_at_outputs
from harness.verify.judging.floor import NoiseFloor
from harness.verify.judging.hits import largest_block_size, probe_hits
from harness.verify.judging.limits import RESOLUTION
from harness.verify.judging.owner_tests import tested_owners
from harness.verify.judging.ownership import Leak, find_leaks
from harness.verify.judging.patterns import said_patterns
from harness.verify.judging.probes import possible_prefixes
from harness.verify.judging.retry_findings import with_retries
from harness.verify.judging.salts import tested, untested
from harness.verify.judging.tiers import unprobed_tiers
from harness.verify.judging.unequal import unequal
from harness.verify.judging.witness import Witnessed, witnessed

_MAX_FINDINGS = 50
"""Findings kept: see :mod:`harness.checkers.completion`."""
_MAX_DOUBTS = 3
_ORDER = (Match.MISMATCH, Match.UNVERIFIED, Match.LEFT_OUT)


def outputs(deployment: Deployment, history: History) -> Check:
    """Every verified output is right."""
    evidence = look_at_outputs(history)
    return check_outputs(deployment, history, evidence, _coverage(deployment, history, evidence))


def check_outputs(
    deployment: Deployment, history: History, evidence: OutputEvidence, notes: Iterable[str] = ()
) -> Check:
    """Like ``outputs``, for evidence that was already collected (all or a part), with further ``notes``."""
    counts = tally(evidence)
    leaks = find_leaks(history, evidence.compared, _near(evidence))
    size = largest_block_size(deployment) or None
    own = (*map(_leak, leaks), *_others(evidence, {leak.request_id for leak in leaks}, tested_owners(history)))
    own = tuple(with_retries(with_wrong_blocks(own, evidence, size), evidence))
    findings = (*own, *cache_findings(deployment, evidence, size))
    verdict = _verdict(counts, evidence)
    parts = [*_summary_parts(counts, evidence)]
    parts += [f"noise limit from {measured.origin}" for measured in history.of(NoiseMeasured)]
    summary = ", ".join(parts)
    if verdict is not Verdict.VALID and findings:
        summary += f"; {findings[0].subject}: {findings[0].text}"
    blocks = {finding.request: finding.block for finding in own if finding.request and finding.block}
    patterns = said_patterns(deployment, history, evidence.compared, size, blocks)
    first = witnessed(history)
    coverage = (*filter(None, (first.note,)), *notes)
    notes = (*_not_tested(deployment, history), *coverage, *_doubts(evidence, first), *patterns)
    return Check("outputs", verdict, summary, findings=findings[:_MAX_FINDINGS], notes=notes)


def _not_tested(deployment: Deployment, history: History) -> Iterator[str]:
    # If salts were tested, the check of salts has the notes on untested servers.
    if not tested(deployment, history):
        yield from untested(deployment, history)
    yield from unprobed_tiers(deployment, history)


def _coverage(deployment: Deployment, history: History, evidence: OutputEvidence) -> Iterator[str]:
    if evidence.probed:
        hits = probe_hits(deployment, history)
        yield from probe_coverage(deployment, evidence, hits, possible_prefixes(deployment, history))


def count_outputs(history: History) -> Outputs:
    """How many outputs are right."""
    return tally(look_at_outputs(history))


def wrong_outputs(history: History) -> tuple[str, ...]:
    """The request ids of wrong outputs, in the order sent."""
    return tuple(one.request_id for one in look_at_outputs(history).compared if one.match is Match.MISMATCH)


def noise_matters(history: History) -> bool:
    """Whether the verdict on some output depends on noise that control requests would measure."""
    return isinstance(look_at_outputs(history).floor, str)


def suspects(history: History) -> tuple[str, ...]:
    """The request ids of outputs and probes that look wrong so far, in the order sent."""
    evidence = look_at_outputs(history)
    probed = [one for _, one in evidence.probed]
    return tuple(one.request_id for one in (*evidence.compared, *probed) if one.match is Match.MISMATCH)


def unconfirmed(history: History) -> tuple[str, ...]:
    """The request ids of outputs whose prompts should be measured again, in this order.

    First come outputs that only control requests can prove wrong (unequal.py), then outputs and probes that look wrong,
    though not beyond any noise, and then doubtful outputs.
    """
    evidence = look_at_outputs(history)
    wrong = [one for one in evidence.compared if one.match is Match.MISMATCH]
    known, probed = {one.request_id for one in wrong}, [one for _, one in evidence.probed]
    unproven = (name for name in unequal(history) if name not in known)
    looking = (one.request_id for one in (*wrong, *probed) if one.match is Match.MISMATCH and not one.certain)
    return tuple(dict.fromkeys((*unproven, *looking, *doubtful(history))))


def doubtful(history: History) -> tuple[str, ...]:
    """The request ids of outputs that are right so far, but doubtful, in the order sent."""
    return tuple(one.request_id for one in look_at_outputs(history).compared if one.doubt)


def tier_suspected(history: History) -> bool:
    """Whether a probe of an offload tier looks wrong so far."""
    probed = look_at_outputs(history).probed
    return any(p.request.condition is Condition.OFFLOAD_TIER and one.match is Match.MISMATCH for p, one in probed)


def doubted_probes(history: History) -> tuple[str, ...]:
    """The request ids of probes that only their own teacher forcing can verify."""
    probed = look_at_outputs(history).probed
    return tuple(one.request_id for probe, one in probed if one.match is Match.UNVERIFIED and not probe.certain)


def owned_outputs(history: History) -> dict[str, str]:
    """The known owners of wrong outputs, by request id."""
    evidence = look_at_outputs(history)
    return {leak.request_id: leak.owner for leak in find_leaks(history, evidence.compared, _near(evidence))}


def near_regret(history: History) -> float:
    """Nats of regret up to which a token counts as the best one."""
    return _near(look_at_outputs(history))


def tally(evidence: OutputEvidence) -> Outputs:
    """How many outputs there are of each kind."""
    matches = [one.match for one in evidence.compared]
    return Outputs(
        requests=len(matches),
        exact=matches.count(Match.EXACT),
        tie=matches.count(Match.TIE),
        mismatch=matches.count(Match.MISMATCH),
        unverified=matches.count(Match.UNVERIFIED) + matches.count(Match.LEFT_OUT),
        noise_floor=evidence.floor.as_json() if isinstance(evidence.floor, NoiseFloor) else {},
    )


def _near(evidence: OutputEvidence) -> float:
    return evidence.floor.near.regret if isinstance(evidence.floor, NoiseFloor) else RESOLUTION


def _leak(leak: Leak) -> Finding:
    """The finding about a leak. It concerns security, so leaks come first."""
    who = leak.request_id
    return Finding(who, leak.text, FindingKind.LEAK, request=who, token=leak.first, owner=leak.owner)


def _others(evidence: OutputEvidence, leaked: set[str], tested: Mapping[str, int]) -> Iterator[Finding]:
    # An output that a policy left out is no finding. Without teacher forcing there was no policy.
    listed = _ORDER if evidence.floor is None else _ORDER[:2]
    rows = [one for one in evidence.compared if one.match in listed and one.request_id not in leaked]
    for one in sorted(rows, key=lambda row: _ORDER.index(row.match)):
        wrong = one.match is Match.MISMATCH
        kind = FindingKind.WRONG_OUTPUT if wrong else FindingKind.UNVERIFIED
        text = f"{one.text}; {_without_owner(tested.get(one.request_id, 0))}" if wrong else one.text
        yield Finding(one.request_id, text, kind, request=one.request_id, token=one.first if wrong else None)


def _without_owner(tested: int) -> str:
    if not tested:
        return "whether its KV is another request's was not tested"
    return f"its KV is not known to be another request's ({tested:,} tested)"


def _verdict(counts: Outputs, evidence: OutputEvidence) -> Verdict:
    matches = [one.match for one in (*evidence.compared, *(one for _, one in evidence.probed))]
    if Match.MISMATCH in matches:
        return Verdict.INVALID
    failed = Match.UNVERIFIED in matches
    left_out = evidence.floor is None and counts.unverified
    verified = counts.exact + counts.tie
    return Verdict.UNKNOWN if failed or left_out or not verified or isinstance(evidence.floor, str) else Verdict.VALID


def _doubts(evidence: OutputEvidence, first: Witnessed) -> Iterator[str]:
    """How many outputs and probes are doubtful, and the first few of them."""
    probed = [one for _, one in evidence.probed]
    doubts = [(one.request_id, one.doubt) for one in (*evidence.compared, *probed) if one.doubt]
    if doubts:
        yield (
            f"{_listed(doubts)} (beyond a limit that noise exceeds in one run of ten, but within the limits that it "
            "exceeds in one of a thousand)"
        )
    named = {one.request_id for one in evidence.compared if one.match is Match.MISMATCH or one.doubt}
    unlike = [(one.request_id, first.doubt(one.request_id)) for one in evidence.compared if one.request_id not in named]
    if unlike := [pair for pair in unlike if pair[1]]:
        yield f"{_listed(unlike)} (no other evidence shows that these are wrong)"


def _listed(doubts: Sequence[tuple[str, str]]) -> str:
    few = "; ".join(f"{who}: {why}" for who, why in doubts[:_MAX_DOUBTS])
    more = "; ..." if len(doubts) > _MAX_DOUBTS else ""
    return f"{len(doubts):,} doubtful, but not counted as wrong: {few}{more}"


def _summary_parts(counts: Outputs, evidence: OutputEvidence) -> Iterator[str]:
    floor, right = evidence.floor, counts.exact + counts.tie
    failed = sum(one.match is Match.UNVERIFIED for one in evidence.compared)
    if floor is None:
        yield f"{right:,} of {counts.requests:,} outputs equal their reference token for token"
        if counts.mismatch:
            yield f"{counts.mismatch:,} differ"
        if counts.unverified:
            yield f"{counts.unverified:,} unverified"
        return
    if counts.mismatch:
        yield f"{counts.mismatch:,} of {counts.requests:,} outputs are wrong"
    if right or not counts.mismatch:
        ties = [f"{counts.tie:,} with near ties"] if counts.tie else []
        limit = (
            [f"noise limit: {floor.far.regret:.2g} nats behind the best token"] if isinstance(floor, NoiseFloor) else []
        )
        details = f" ({', '.join((*ties, *limit))})" if ties or limit else ""
        which = f"{right:,}" if counts.mismatch else f"{right:,} of {counts.requests:,} outputs"
        yield f"{which} agree with teacher forcing{details}"
    if not evidence.with_logprobs:
        yield "tokens alone were compared, since log-probabilities were not all served"
    if failed:
        yield f"{failed:,} unverified"
    if counts.unverified > failed:
        yield f"{counts.unverified - failed:,} not sampled"
    if isinstance(floor, str):
        yield f"the noise limit is not known: {floor}"
