"""How long verification will take, estimated when the load has ended."""

from harness.history import History, VerificationPlanned
from harness.verify.asking.ledger import Ledger
from harness.verify.asking.options import Verification
from harness.verify.asking.outputs import through_proxy, tokens_of
from harness.verify.asking.policy import Extent
from harness.verify.asking.probe import PROBES


def plan(verification: Verification, history: History) -> VerificationPlanned | None:
    """What is planned for the load of this history; None if none of its outputs can be verified.

    The estimate holds for a load without noise and without wrong outputs, which cost further requests.
    """
    picked, ledger = verification.picked(history), verification.ledger(history)
    if not picked:
        return None
    seconds, tokens = ledger.budget.seconds, ledger.budget.tokens
    forced = ledger.rates.token * sum(map(tokens_of, picked))
    expected = forced + ledger.rates.probe * _probes(verification, history, ledger)
    last = max(o.ended.at for o in history.operations())
    return VerificationPlanned(
        last if verification.now is None else verification.now(),
        len(picked),
        min(expected, seconds),
        None if seconds == float("inf") else seconds,
        None if tokens == float("inf") else int(tokens),
    )


def _probes(verification: Verification, history: History, ledger: Ledger) -> int:
    """About how many probes there will be. Prompts that begin alike have fewer prefixes than are counted here."""
    size = verification.block_size
    prefixes = sum((o.prompt_tokens - 1) // size for o in through_proxy(history))
    if verification.how.policy.extent is Extent.ALL:
        return prefixes
    return min(2 * prefixes, ledger.probes_left(PROBES))
