"""The options of ``--fault``: those of the kind and no others."""

import pytest

from harness.errors import UsageError
from harness.faults import KINDS, parse_fault


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["kind", "tolerates", "churns", "outlasts_load", "_stopped", "nothing"])
def test_what_is_no_option_is_refused_in_one_sentence(kind: str, name: str) -> None:
    with pytest.raises(UsageError, match="no such option"):
        parse_fault(f"{kind}:{name}=1")


def test_options_become_values_of_the_type_of_their_defaults() -> None:
    fault = parse_fault("link:link=prefill-0,how=delay,ms=50").fault
    assert (fault.target, getattr(fault, "ms", None)) == ("prefill-0", 50)
