"""The benchmark of workers: which cores it uses, and what it compares."""

import argparse
import os

import pytest

from bench.cores import Cores, apart, core_list, spelled
from bench.workers import ALONE, Measured, table


def test_servers_have_the_cores_that_clients_have_not() -> None:
    cores = Cores.of((0, 1), None, frozenset(range(6)))
    assert (cores.servers, cores.shared) == ((2, 3, 4, 5), False)
    assert "FEW" not in str(cores)
    assert Cores.of((0, 1), 5, frozenset(range(6))).servers == (2, 3, 4)


def test_too_few_cores_are_shared_and_it_is_said() -> None:
    cores = Cores.of((0, 1), None, frozenset({0, 1}))
    assert (cores.servers, cores.shared) == ((0, 1), True)
    assert "TOO FEW CORES" in str(cores)


def test_two_threads_of_one_core_are_not_two_cores() -> None:
    def threads(core: int) -> frozenset[int]:
        return frozenset({core % 4, core % 4 + 4})

    eight = frozenset(range(8))
    assert apart([5, 1, 0, 4], lambda core: frozenset({core & ~1, core | 1})) == [0, 4, 1, 5]
    cores = Cores.of((0, 1), None, eight, threads)
    assert (cores.servers, cores.halves) == ((2, 3, 6, 7), False)
    for clients, main in (((0, 4), None), ((0, 1), 5), ((0, 1, 2, 3), None)):
        found = Cores.of(clients, main, eight, threads)
        assert not found.shared
        assert "TWO THREADS OF ONE CORE" in str(found)


def test_main_and_workers_together_have_as_many_cores_as_there_are_workers() -> None:
    cores = Cores.of((4, 5, 6), None, frozenset(range(8)))
    assert (cores.of_workers(2), cores.of_main(2)) == ((4, 5), {4, 5})
    assert (cores.of_workers(ALONE), cores.of_main(ALONE)) == ((4,), {4})
    apart = Cores.of((4, 5, 6), 7, frozenset(range(8)))
    assert apart.of_main(2) == {7}
    assert apart.of_main(ALONE) == {4}, "alone, the main process sends, on one core like one worker"


def test_lists_of_cores_are_read_and_spelled() -> None:
    assert spelled((0, 1, 2, 3, 8)) == "cores 0-3,8"
    first = min(os.sched_getaffinity(0))
    assert core_list(f"{first},{first}-{first}") == (first,)
    for wrong in ("", "a", "1-", "100000", "3-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            core_list(wrong)


def test_ratios_are_medians_of_rounds_and_over_the_time_of_the_load() -> None:
    def took(*seconds: float) -> list[Measured]:
        return [Measured(one, 0.5, (0.2,), 0.1, (0.4,)) for one in seconds]

    rows = [*table({ALONE: took(1.0, 2.0, 8.0), 1: took(1.25, 2.5, 10.0), 2: took(0.5, 1.0, 9.0)}, 100)][1:]
    assert [row.split()[:4] for row in rows] == [
        ["alone", "50", "1.00", "1.25"],
        ["1", "worker", "40", "0.80"],
        ["2", "workers", "100", "2.00"],
    ]
    assert rows[2].split()[4:6] == ["2.50", "0.50"]
    assert [*table({ALONE: took(1.0)}, 100)][1].split()[3] == "-", "nothing to compare with"
