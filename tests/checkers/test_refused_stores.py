"""A refused store of the tier excuses the chunks of one request, and no more."""

import counted_run as run
import pytest

from harness.checkers.offload_bytes import offload_bytes
from harness.verdict import Verdict

# Both servers store 1 + 2 chunks of 64 tokens: the longer prompt has two.


@pytest.mark.parametrize(
    ("stored", "refused", "verdict"),
    [
        (3, 0, Verdict.VALID),
        (2, 0, Verdict.INVALID),
        (2, 1, Verdict.VALID),
        (1, 1, Verdict.VALID),
        (0, 1, Verdict.INVALID),
        (0, 2, Verdict.VALID),
        (4, 2, Verdict.INVALID),
    ],
)
@pytest.mark.parametrize("server", ["prefill", "decode"])
def test_each_refusal_excuses_one_request(server: str, stored: int, refused: int, verdict: Verdict) -> None:
    changed = {"store": stored * run.BLOCK, "store_legacy": stored * run.BLOCK, "refused": refused}
    prefill, decode = (
        clean | (changed if name == server else {})
        for name, clean in (("prefill", run.PREFILL), ("decode", run.DECODE))
    )
    assert offload_bytes(run.DEPLOYMENT, run.history(run.readings(prefill, decode))).verdict is verdict


def test_an_excused_comparison_has_a_reason() -> None:
    few = run.DECODE | {"store": run.BLOCK, "store_legacy": run.BLOCK, "refused": 1}
    check = offload_bytes(run.DEPLOYMENT, run.history(run.readings(decode=few)))
    assert "refused 1 stores" in next(one.why_unknown for one in check.comparisons if one.why_unknown)
