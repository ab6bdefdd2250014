"""What `list` says of faults."""

from harness.cli.fault_list import fault_lines
from harness.faults import KINDS
from harness.faults.pause import IDLE_S


def test_each_kind_has_a_line_and_its_options() -> None:
    lines = list(fault_lines(20))
    for kind in KINDS:
        place = next(n for n, line in enumerate(lines) if line.split()[:1] == [kind])
        assert lines[place + 1].strip().startswith("options: ")


def test_it_says_that_long_pauses_of_a_whole_server_close_idle_connections() -> None:
    lines = list(fault_lines(20))
    pause = next(n for n, line in enumerate(lines) if line.split()[:1] == ["pause"])
    assert f"more than {IDLE_S:g} s" in lines[pause + 2]
    assert "part=engine" in lines[pause + 2]
