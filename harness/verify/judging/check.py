"""Whether every answer that was looked at is the one that its prompt has without KV transfer.

Outputs are judged by teacher forcing against a noise floor that a control arm measured in the same run (forcing.py,
floor.py, judging.py); where a run has plain references instead, by equality (strict.py). What was asked to be verified
and could not be makes the run unknown, and so does a run of which nothing was verified. What a policy left out
(``--verify sample:N``, ``budget:PCT``) is counted as unverified and said, and does not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.facts import Deployment
from harness.history import History, NoiseMeasured
from harness.scenario import Condition
from harness.verdict import Check, Finding, FindingKind, Outputs, Verdict
from harness.verify.judging.caches import coverage, in_caches, with_places
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.evidence import OutputEvidence, look_at_outputs
from harness.verify.judging.floor import RESOLUTION, NoiseFloor
from harness.verify.judging.hits import probe_hits
from harness.verify.judging.ownership import Leak, find_leaks, searches
from harness.verify.judging.probes import possible_prefixes
from harness.verify.judging.retried import with_retries
from harness.verify.judging.salts import tested, untested
from harness.verify.judging.tiers import tiers_not_asked

_LISTED = 50
"""Findings kept: see :mod:`harness.checkers.completion`."""
_DOUBTS_TOLD = 3
_ORDER = (Match.MISMATCH, Match.UNVERIFIED, Match.UNSAMPLED)


def outputs(deployment: Deployment, history: History) -> Check:
    """Every output that was looked at is right."""
    evidence = look_at_outputs(history)
    return check_outputs(deployment, history, evidence, _coverage(deployment, history, evidence))


def check_outputs(
    deployment: Deployment, history: History, evidence: OutputEvidence, notes: Iterable[str] = ()
) -> Check:
    """Like ``outputs``, for evidence that was already collected, all of it or a part; with further ``notes``."""
    counts = tally(evidence)
    leaks = find_leaks(history, evidence.compared, _near(evidence))
    searched = searches(history)
    size = max((server.block_size or 0 for server in deployment.servers), default=0) or None
    about = (*_leaked(leaks), *_others(evidence, {leak.request_id for leak in leaks}, searched))
    findings = (*with_retries(with_places(about, evidence, size), evidence), *in_caches(evidence, size))
    verdict = _verdict(counts, evidence)
    words = [
        *_words(counts, evidence),
        *(f"noise as in {measured.origin}" for measured in history.of(NoiseMeasured)),
    ]
    notes = (*_not_asked(deployment, history), *notes, *_doubts(evidence))
    return Check("outputs", verdict, _line(words, findings, verdict), findings=findings[:_LISTED], notes=notes)


def _not_asked(deployment: Deployment, history: History) -> Iterator[str]:
    if not tested(deployment, history):  # else the checker of salts tells it
        yield from untested(deployment, history)
    yield from tiers_not_asked(deployment, history)


def _coverage(deployment: Deployment, history: History, evidence: OutputEvidence) -> Iterator[str]:
    if evidence.readings:
        hits = probe_hits(deployment, history)
        yield from coverage(evidence, hits, possible_prefixes(deployment, history))


def count_outputs(history: History) -> Outputs:
    """How many are right."""
    return tally(look_at_outputs(history))


def wrong_outputs(history: History) -> tuple[str, ...]:
    """The request ids of outputs that are wrong, in the order sent."""
    return tuple(one.request_id for one in look_at_outputs(history).compared if one.match is Match.MISMATCH)


def noise_matters(history: History) -> bool:
    """Whether the verdict on some output waits for the noise to be measured."""
    return isinstance(look_at_outputs(history).floor, str)


def suspects(history: History) -> tuple[str, ...]:
    """The request ids of outputs and of probes that are wrong, as far as it is known, in the order sent."""
    evidence = look_at_outputs(history)
    return tuple(one.request_id for one in (*evidence.compared, *evidence.probed) if one.match is Match.MISMATCH)


def tier_suspected(history: History) -> bool:
    """Whether a probe of an offload tier is wrong, as far as it is known."""
    wrong = set(suspects(history))
    probes = (o.request for o in history.operations() if o.request.request_id in wrong)
    return any(probe.condition is Condition.OFFLOAD_TIER for probe in probes)


def doubted_probes(history: History) -> tuple[str, ...]:
    """The request ids of probes that nothing but a teacher forcing of their own can judge."""
    evidence = look_at_outputs(history)
    pairs = zip(evidence.readings, evidence.probed, strict=True)
    return tuple(one.request_id for reading, one in pairs if one.match is Match.UNVERIFIED and not reading.certain)


def owned_outputs(history: History) -> dict[str, str]:
    """The owners of the KV that wrong outputs were made from, as far as they can be named; by request id."""
    evidence = look_at_outputs(history)
    return {leak.request_id: leak.owner for leak in find_leaks(history, evidence.compared, _near(evidence))}


def tally(evidence: OutputEvidence) -> Outputs:
    """How many of each kind."""
    matches = [one.match for one in evidence.compared]
    return Outputs(
        requests=len(matches),
        exact=matches.count(Match.EXACT),
        tie=matches.count(Match.TIE),
        mismatch=matches.count(Match.MISMATCH),
        unverified=matches.count(Match.UNVERIFIED) + matches.count(Match.UNSAMPLED),
        noise_floor=evidence.floor.as_json() if isinstance(evidence.floor, NoiseFloor) else {},
    )


def _near(evidence: OutputEvidence) -> float:
    return evidence.floor.near.regret if isinstance(evidence.floor, NoiseFloor) else RESOLUTION


def _leaked(leaks: Sequence[Leak]) -> tuple[Finding, ...]:
    """Another request's KV is a matter of security and comes before anything else."""
    return tuple(
        Finding(
            leak.request_id, leak.text, FindingKind.LEAK, request=leak.request_id, token=leak.first, owner=leak.owner
        )
        for leak in leaks
    )


def _others(evidence: OutputEvidence, told: set[str], searched: Mapping[str, int]) -> tuple[Finding, ...]:
    # What a policy left out is no finding; where there was no policy, nothing was to be left out.
    listed = _ORDER if evidence.floor is None else _ORDER[:2]
    rows = [one for one in evidence.compared if one.match in listed and one.request_id not in told]
    rows.sort(key=lambda one: _ORDER.index(one.match))
    return tuple(
        Finding(
            one.request_id,
            _told(one, searched),
            _kind(one),
            request=one.request_id,
            token=one.first if one.match is Match.MISMATCH else None,
        )
        for one in rows
    )


def _kind(one: Compared) -> FindingKind:
    return FindingKind.WRONG_OUTPUT if one.match is Match.MISMATCH else FindingKind.UNVERIFIED


def _told(one: Compared, searched: Mapping[str, int]) -> str:
    """What is wrong; of a wrong output also whether anybody's KV was looked for in it."""
    if one.match is not Match.MISMATCH:
        return one.text
    tried = searched.get(one.request_id, 0)
    search = f"no owner among {tried:,} other requests" if tried else "whose KV it was has not been looked for"
    return f"{one.text}; {search}"


def _verdict(counts: Outputs, evidence: OutputEvidence) -> Verdict:
    everything = [one.match for one in (*evidence.compared, *evidence.probed)]
    if Match.MISMATCH in everything:
        return Verdict.INVALID
    failed = Match.UNVERIFIED in everything
    strict = evidence.floor is None
    left_out = strict and counts.unverified
    verified = counts.exact + counts.tie
    return Verdict.UNKNOWN if failed or left_out or not verified or isinstance(evidence.floor, str) else Verdict.VALID


def _doubts(evidence: OutputEvidence) -> Iterator[str]:
    """How many outputs and probes are doubtful, and the first few of them."""
    doubtful = [one for one in (*evidence.compared, *evidence.probed) if one.doubt]
    if doubtful:
        few = "; ".join(f"{one.request_id} {one.doubt}" for one in doubtful[:_DOUBTS_TOLD])
        yield f"{len(doubtful):,} doubtful, which counts against nobody (noise likely ends there, and may not): {few}"


def _words(counts: Outputs, evidence: OutputEvidence) -> list[str]:
    words = [_right(counts, evidence), *_wrong(counts, evidence)]
    return [*words, f"the noise is not known: {evidence.floor}"] if isinstance(evidence.floor, str) else words


def _line(words: Sequence[str], findings: tuple[Finding, ...], verdict: Verdict) -> str:
    line = ", ".join(words)
    if verdict is not Verdict.VALID and findings:
        return f"{line}; {findings[0].subject} {findings[0].text}"
    return line


def _right(counts: Outputs, evidence: OutputEvidence) -> str:
    if evidence.floor is None:
        return f"{counts.exact:,} of {counts.requests:,} outputs equal their reference token for token"
    line = f"{counts.exact + counts.tie:,} of {counts.requests:,} outputs are what teacher forcing says"
    if counts.tie:
        line += f" ({counts.tie:,} with near ties within the noise)"
    if isinstance(evidence.floor, NoiseFloor):
        line += f", no token more than {evidence.floor.far.regret:.2g} nats behind"
    return line if evidence.with_drift else f"{line}, tokens alone: their log-probabilities were not all served"


def _wrong(counts: Outputs, evidence: OutputEvidence) -> list[str]:
    failed = sum(one.match is Match.UNVERIFIED for one in evidence.compared)
    left_out = counts.unverified - failed
    strict = evidence.floor is None
    words = [f"{counts.mismatch:,} differ"] if counts.mismatch else []
    words += [f"{failed + (left_out if strict else 0):,} unverified"] if failed or (strict and left_out) else []
    return words + ([f"{left_out:,} not sampled"] if left_out and not strict else [])
