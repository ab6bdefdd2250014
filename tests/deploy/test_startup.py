"""A starting server's stage, and the cause of a failure, read from logs of real servers."""

from itertools import accumulate, groupby
from pathlib import Path

from harness.deploy.startup import cause, last_lines, stage

LOG = (Path(__file__).parents[1] / "data" / "startup.log").read_text()

ENGINE_DIED = """\
(EngineCore pid=41) ERROR 11-23 01:02:03 [core.py:1] EngineCore failed to start.
(EngineCore pid=41) ERROR 11-23 01:02:03 [core.py:1] Traceback (most recent call last):
(EngineCore pid=41) ERROR 11-23 01:02:03 [core.py:1]   File "core.py", line 1, in run
(EngineCore pid=41) ERROR 11-23 01:02:03 [core.py:1] ValueError: No available memory for the cache blocks.
(APIServer pid=40) Traceback (most recent call last):
(APIServer pid=40) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_stages_of_a_start_are_found_in_order() -> None:
    seen = [stage(log) for log in accumulate(LOG.splitlines(keepends=True))]
    assert [name for name, _ in groupby(seen)] == [
        None,
        "reading the model's configuration",
        "starting the engine",
        "starting its worker",
        "loading weights",
        "sizing the KV cache",
        "allocating the KV cache",
        "registering the KV cache with NIXL",
        "starting the HTTP server",
        "answering",
    ]


def test_a_healthy_start_has_no_cause() -> None:
    assert cause(LOG) is None


def test_the_engines_own_exception_is_the_cause_and_not_its_consequences() -> None:
    assert cause(ENGINE_DIED) == "ValueError: No available memory for the cache blocks."


def test_a_pydantic_error_has_its_details() -> None:
    log = (
        "(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "(APIServer pid=7)   Value error, Invalid repository ID or local directory [type=value_error]\n"
        "(APIServer pid=7)     For further information visit the documentation\n"
    )
    found = cause(log)
    assert found is not None
    assert found.startswith("ValidationError: 1 validation error for ModelConfig Value error, Invalid repository ID")


def test_a_flag_that_the_engine_does_not_know_is_the_cause() -> None:
    log = "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --no-such-flag\n"
    assert cause(log) == "unrecognized arguments: --no-such-flag"


def test_a_log_without_an_exception_has_no_cause_but_last_lines() -> None:
    assert cause("one\ntwo\n") is None
    assert last_lines("one\n\ntwo\nthree\n", 2) == "two\nthree"
