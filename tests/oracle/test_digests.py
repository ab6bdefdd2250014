"""The table of digests numbers them as a dictionary would."""

from hypothesis import given
from hypothesis import strategies as st

from harness.oracle.digests import Digests

# Few different halves, so that many digests begin alike.
DIGESTS = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
    lambda halves: b"".join(half.to_bytes(8, "little") for half in halves)
)


@given(digests=st.lists(DIGESTS, max_size=60), newest=st.integers(1, 8))
def test_each_different_digest_has_a_number_in_the_order_of_appearance(digests: list[bytes], newest: int) -> None:
    table, plain = Digests(newest), dict[bytes, int]()
    for digest in digests:
        assert table.number(digest) == plain.setdefault(digest, len(plain))
