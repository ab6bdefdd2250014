"""The damage bench's results as lines of a terminal and as a Markdown page. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.damage_row import CLEAN, Row, Strike

_COLUMNS = (
    *("kind", "seed", "damaged", "named", "missed", "falsely named", "sharing", "doubtful"),
    *("no answer", "wrong owners", "exit code", "tokens", "time", "seconds"),
)
_WIDTHS = tuple(max(len(name), 6) for name in _COLUMNS[1:])

_MEANING = """\
Each row is one run of `python -m harness` against the same running pair, whose caches are emptied before each run. A
plugin in the decode server (`bench/damage_plugin`) damages the KV of a known share of the requests after it has been
transferred, and lists them; the harness does not see the list.

- *kind*: what was done (below); `mixed`: the kinds in turn; `clean`: nothing.
- *seed*: of the prompts and of the choice of requests.
- *damaged*: requests in the plugin's list. Damage that cannot have an effect is not done, and not listed.
- *named*: damaged requests about which a finding of the outputs check says that the answer, or a cached block of the
  prompt, is wrong.
- *missed*: damaged requests that were not named. Damage can be harmless: two blocks that change places leave their own
  request right, one bit of one number often changes no answer. Such a request counts as missed all the same.
- *falsely named*: requests named without damage, less those of the next column.
- *sharing*: undamaged requests whose prompt begins like a damaged one's, up to and including a damaged block (a full
  one), and that were sent to the same decode server after the damaged one: they may read the damaged block from the
  server's prefix cache. Named or not, they count neither as named nor as falsely named.
- *doubtful*: missed ones that the harness lists as doubtful.
- *no answer*: damaged requests that the engine did not answer properly, named or not.
- *wrong owners*: damaged or sharing requests of which the harness says that they were answered with a certain other
  request's KV, which they were not.
- *exit code*: of the harness: 0 valid, 1 invalid, 3 unknown. A run with damage should be invalid, a clean one valid.
- *tokens*, *time*: what verification computed and how long it took, as a share of the load's.
- *seconds*: the whole process.

Kinds: `foreign` (all whole blocks are another request's), `stale` (one block is), `zero_last` (the last block is zero),
`layer` (one layer is zero), `shift` (each token has the K and V of the one before), `scale` (K and V are 1 % too
large), `noise` (of 1 % of a standard deviation), `flip` (one high bit of one number), `swap` (two blocks change
places).
"""


def heading() -> str:
    """The terminal's line of column names."""
    return "  ".join(
        [f"{_COLUMNS[0]:<12}", *(f"{name:>{width}}" for name, width in zip(_COLUMNS[1:], _WIDTHS, strict=True))]
    )


def line(row: Row) -> str:
    """One run on the terminal."""
    return _aligned(_cells(row))


def totals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each kind of damage, for all together and for the clean runs."""
    strikes = [strike for row in rows for strike in row.strikes]
    clean = [row for row in rows if row.kind == CLEAN]
    lines = [f"{kind}: {_told(of)}" for kind, of in _by_kind(strikes).items()]
    if strikes:
        lines.append(f"all kinds: {_told(strikes)}")
    lines.extend(_told_of_others(rows))
    if clean:
        lines.append(f"clean runs: {sum(row.exit_code == 0 for row in clean)} of {len(clean)} valid")
    return lines


def _told_of_others(rows: Sequence[Row]) -> Iterator[str]:
    false = sum(len(row.falsely_named) for row in rows)
    sharing = sum(len(row.sharing) for row in rows)
    undamaged = sum(row.requests - len(row.strikes) for row in rows) - sharing
    without = " that share no damaged block" if sharing else ""
    yield f"falsely named: {false} of {undamaged:,} undamaged requests{without}"
    if sharing:
        named = sum(len(row.sharing_named) for row in rows)
        yield f"sharing: {sharing:,} undamaged requests may have read another's damaged block; {named:,} of them named"


def page(title: str, facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The Markdown page; ``facts`` say where and when it was measured, and with what."""
    return "\n".join(
        [
            f"# {title}",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            "## Totals",
            "",
            *(f"- {sentence}" for sentence in totals(rows)),
            "",
            "## Runs",
            "",
            *_table([_COLUMNS, *map(_cells, rows)]),
            "",
            *_exceptions(rows),
            "## What the columns mean",
            "",
            _MEANING,
        ]
    )


def _aligned(cells: Sequence[str]) -> str:
    first, *others = cells
    return "  ".join([f"{first:<12}", *(f"{cell:>{width}}" for cell, width in zip(others, _WIDTHS, strict=True))])


def _exceptions(rows: Iterable[Row]) -> Iterator[str]:
    """The damaged requests that were missed, and the undamaged ones that were named, one by one."""
    missed = [f"- {row.kind}, seed {row.seed}: {one.request} ({one.kind})" for row in rows for one in row.missed]
    false = [f"- {row.kind}, seed {row.seed}: {who}: {text}" for row in rows for who, text in row.falsely_named.items()]
    sharing = [
        f"- {row.kind}, seed {row.seed}: {one.request}, which shares a block with {one.damaged}: {one.said}"
        for row in rows
        for one in row.sharing_named
    ]
    for name, lines in (("Missed", missed), ("Falsely named", false), ("Sharing a damaged block, and named", sharing)):
        if lines:
            yield from (f"## {name}", "", *lines, "")


def _cells(row: Row) -> tuple[str, ...]:
    strikes = (row.strikes, row.named, row.missed, row.falsely_named, row.sharing, row.doubtful)
    counts = [str(len(part)) for part in strikes]
    counts += [str(sum(one.unanswered for one in row.strikes)), str(len(row.wrong_owners))]
    shares = [_percent(row.token_share), _percent(row.time_share)]
    return (row.kind, str(row.seed), *counts, str(row.exit_code), *shares, f"{row.seconds:.0f}")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, cells in enumerate(rows):
        yield f"| {' | '.join(cells)} |"
        if not number:
            yield f"|{'---|' * len(cells)}"


def _by_kind(strikes: Iterable[Strike]) -> dict[str, list[Strike]]:
    kinds: dict[str, list[Strike]] = {}
    for strike in strikes:
        kinds.setdefault(strike.kind, []).append(strike)
    return kinds


def _told(strikes: Sequence[Strike]) -> str:
    return f"{sum(one.named for one in strikes)} of {len(strikes)} damaged requests named"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
