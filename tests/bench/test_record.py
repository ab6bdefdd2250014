"""A stored run's noise, written to a file and read by the bench that judges such files."""

import json
import lzma
from pathlib import Path

import numpy as np
from forced_histories import gaussian, run

from bench.record import recorded
from bench.recorded import read


def test_what_is_written_is_what_the_bench_reads(tmp_path: Path) -> None:
    content = recorded(run(gaussian(0.01), outputs=20, controls=10), "canary", {"load-3": "noise"})
    with lzma.open(path := tmp_path / "canary-noise-c1.json.xz", "wt") as file:
        json.dump(content, file)
    found = read(path)
    assert (found.model, len(found.control), len(found.served)) == ("canary", 10, 20)
    assert [index for index, damaged in enumerate(found.damaged) if damaged] == [3]
    written = content["served"][3]
    assert np.allclose(found.served[3].drift, written["drift"])
    assert (content["kind"], written["request"]) == ("noise", "load-3")
