"""The damage bench counts who was named against who was damaged, and plans runs that do not disturb each other."""

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import damage, damage_flags, damage_page, sabotage
from bench.damage_row import Row, row
from bench.sabotage import Blow, Saboteur


def finding(request: str | None, kind: str = "wrong_output", *, owner: str | None = None) -> dict[str, Any]:
    return {"request": request, "subject": request or "decode-0", "kind": kind, "owner": owner, "text": "it is wrong"}


def result(*outputs: dict[str, Any], completion: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "num_prompts": 100,
        "verdict": "invalid",
        "checks": [
            {"name": "outputs", "findings": list(outputs)},
            {"name": "completion", "findings": list(completion)},
        ],
        "verification_cost": {"tokens": 50, "load_tokens": 1000, "seconds": 2.0, "load_seconds": 8.0},
    }


def made(
    *outputs: dict[str, Any],
    kind: str = "mixed",
    exit_code: int = 1,
    sharing: Mapping[str, str] | None = None,
    **more: Any,
) -> Row:
    blows = [] if kind == "clean" else [Blow("load-1", "foreign", {"owner": "load-9"}), Blow("load-2", "flip", {})]
    return row(kind, 100, result(*outputs, **more), blows, exit_code=exit_code, seconds=11.0, sharing=sharing or {})


class TestRow:
    def test_damaged_requests_are_named_or_missed(self) -> None:
        one = made(finding("load-1"), finding("load-1", "cache"))
        assert [strike.request for strike in one.named] == ["load-1"]
        assert [strike.request for strike in one.missed] == ["load-2"]
        assert one.falsely_named == {}
        assert not one.as_expected

    def test_anybody_else_is_falsely_named_a_server_too(self) -> None:
        one = made(finding("load-1"), finding("load-2", "cache"), finding("load-3", "leak"), finding(None))
        assert one.falsely_named == {"load-3": "it is wrong", "decode-0": "it is wrong"}
        assert not one.as_expected

    def test_who_shares_a_damaged_block_is_neither_named_nor_falsely_named(self) -> None:
        one = made(
            *(finding(f"load-{number}") for number in (1, 2, 3, 5)), sharing={"load-3": "load-1", "load-4": "load-2"}
        )
        assert [strike.request for strike in one.named] == ["load-1", "load-2"]
        assert one.falsely_named == {"load-5": "it is wrong"}
        assert [(who.request, who.damaged, who.said) for who in one.sharing] == [
            ("load-3", "load-1", "it is wrong"),
            ("load-4", "load-2", None),
        ]
        assert one.as_json()["sharing_named"] == 1

    def test_who_shares_a_damaged_block_does_not_spoil_a_run(self) -> None:
        named = finding("load-1"), finding("load-2"), finding("load-3")
        assert not made(*named).as_expected
        assert made(*named, sharing={"load-3": "load-1"}).as_expected

    def test_what_is_unknown_names_nobody(self) -> None:
        one = made(finding("load-1", "unverified"), finding("load-2", "doubtful"), finding("load-3", "doubtful"))
        assert (one.named, one.falsely_named) == ((), {})
        assert [strike.request for strike in one.doubtful] == ["load-2"]

    def test_a_request_without_an_answer_is_not_named_by_that(self) -> None:
        one = made(completion=(finding("load-2", "other"),))
        assert [(strike.named, strike.unanswered) for strike in one.strikes] == [(False, False), (False, True)]

    @pytest.mark.parametrize(("owner", "wrong"), [("load-9", []), (None, []), ("load-8", ["load-1"])])
    def test_an_owner_is_right_unnamed_or_wrong(self, owner: str | None, wrong: list[str]) -> None:
        one = made(finding("load-1", "leak", owner=owner), finding("load-2"))
        assert [strike.request for strike in one.wrong_owners] == wrong

    def test_an_owner_of_damage_without_one_is_wrong(self) -> None:
        assert [one.request for one in made(finding("load-2", "leak", owner="load-9")).wrong_owners] == ["load-2"]

    def test_an_owner_of_a_shared_block_is_that_of_the_damaged_request(self) -> None:
        for owner, wrong in (("load-9", []), ("load-8", ["load-3"])):
            one = made(finding("load-3", "leak", owner=owner), sharing={"load-3": "load-1"})
            assert [who.request for who in one.wrong_owners] == wrong

    def test_shares_are_of_the_load(self) -> None:
        assert (made().token_share, made().time_share) == (0.05, 0.25)

    @pytest.mark.parametrize(("exit_code", "expected"), [(0, True), (1, False), (3, False), (4, False)])
    def test_a_clean_run_must_be_valid(self, exit_code: int, expected: bool) -> None:
        assert made(kind="clean", exit_code=exit_code).as_expected is expected

    def test_a_run_in_which_nothing_could_be_damaged_proves_nothing(self) -> None:
        assert not row("swap", 100, result(), [], exit_code=0, seconds=1.0, sharing={}).as_expected

    def test_a_run_without_a_result_has_a_row(self) -> None:
        one = row("flip", 100, {}, [Blow("load-2", "flip", {})], exit_code=4, seconds=1.0, sharing={})
        assert (one.verdict, len(one.missed), one.token_share) == ("none", 1, None)
        assert json.dumps(one.as_json())


class TestPlan:
    def plan(self, *words: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(one.name, one.kinds) for one in damage_flags.plan(damage_flags.parse("", words))]

    def test_each_kind_and_a_clean_run_for_each_seed(self) -> None:
        assert self.plan("--kinds", "foreign,noise", "--seeds", "2", "--clean") == 2 * [
            ("foreign", ("foreign",)),
            ("noise", ("noise",)),
            ("clean", ()),
        ]

    def test_all_kinds_in_one_run(self) -> None:
        assert self.plan("--mixed", "--seeds", "1") == [("mixed", sabotage.KINDS)]
        assert self.plan("--mixed", "--kinds", "none", "--clean", "--seeds", "1") == [("clean", ())]

    def test_no_two_runs_have_the_same_prompts(self) -> None:
        planned = damage_flags.plan(damage_flags.parse("", ["--clean", "--seeds", "9"]))
        assert len({one.seed for one in planned}) == len(planned) == 90
        later = damage_flags.plan(damage_flags.parse("", ["--first-seed", "10", "--seeds", "9"]))
        assert not {one.seed for one in planned} & {one.seed for one in later}

    @pytest.mark.parametrize(
        "words",
        [["--kinds", "scald"], ["--kinds", "none"], ["--decode-url", "http://d"], ["--state-file", "state.json"]],
    )
    def test_what_cannot_be_run_is_refused(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            damage_flags.parse("", words)
        assert "error" in capsys.readouterr().err


def test_the_kinds_are_those_of_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench runs without torch, and so does not import the plugin's own list."""
    pytest.importorskip("torch", reason="the engine is not installed: make env")
    monkeypatch.setattr(sys, "path", [*sys.path, str(sabotage.PLUGIN_PATH)])
    assert set(importlib.import_module("pd_damage.kinds").KINDS) == {*sabotage.KINDS, *sabotage.MORE_KINDS}


def test_the_page_counts_and_lists_the_exceptions() -> None:
    sharing = {"load-3": "load-1", "load-4": "load-1"}
    rows = [made(*map(finding, ("load-1", "load-4", "load-7")), sharing=sharing), made(kind="clean", exit_code=0)]
    page = damage_page.page("Damage", {"date": "today"}, rows)
    assert "| mixed | 100 | 2 | 1 | 1 | 1 | 2 | 0 | 0 | 0 | 1 | 5.0% | 25.0% | 11 |" in page
    assert "- mixed, seed 100: load-2 (flip)" in page
    assert "- mixed, seed 100: load-7: it is wrong" in page
    assert "- mixed, seed 100: load-4, which shares a block with load-1: it is wrong" in page
    assert "load-3, which shares" not in page
    assert "- sharing: 2 undamaged requests may have read another's damaged block; 1 of them named" in page
    assert "- falsely named: 1 of 196 undamaged requests that share no damaged block" in page
    assert "- clean runs: 1 of 1 valid" in page
    for kind in sabotage.KINDS:
        assert f"`{kind}`" in page


def test_columns_stand_under_their_names() -> None:
    heading, line = damage_page.heading(), damage_page.line(made(finding("load-1")))
    assert len(heading) == len(line)
    assert heading.index("named") + len("named") == line.index(" 1", line.index("2")) + 2


def test_orders_stand_only_while_a_run_goes_on(tmp_path: Path) -> None:
    saboteur = Saboteur(tmp_path)
    orders, ledger = tmp_path / "orders.json", tmp_path / "ledger.jsonl"
    ledger.write_text('{"request": "load-1", "kind": "flip"}\n')
    with saboteur.striking(["noise"], one_in=20, seed=3):
        assert json.loads(orders.read_text())["kinds"] == ["noise"]
        assert saboteur.blows() == ()
        ledger.write_text('{"request": "load-2", "kind": "noise"}\n')
    assert not orders.exists()
    assert [blow.request for blow in saboteur.blows()] == ["load-2"]
    with saboteur.striking([], one_in=20, seed=3):
        assert not orders.exists()
        assert saboteur.blows() == ()


def test_rows_are_written_after_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness is replaced by a program that writes a result, with the seed in its dataset's name."""
    fake = "import pathlib, sys; p = pathlib.Path(sys.argv[sys.argv.index('--result-dir') + 1], 'latest'); p.mkdir(); "
    fake += f"p.joinpath('result.json').write_text({json.dumps(json.dumps(whole_result()))}); print(sys.argv[1:])"
    monkeypatch.setattr(damage, "_HARNESS", (sys.executable, "-c", fake))
    monkeypatch.setattr(damage, "empty_caches", lambda _: None)
    attach = ["--prefill-url", "http://p", "--decode-url", "http://d", "--sabotage", str(tmp_path / "sabotage")]
    out = tmp_path / "out"
    words = [
        "--kinds",
        "none",
        "--clean",
        "--seeds",
        "1",
        "--out",
        str(out),
        *attach,
        "--",
        "--dataset-path",
        "{seed}.jsonl",
    ]
    assert damage.main(words) == 0
    content = json.loads((out / "results.json").read_text())
    assert [(one["kind"], one["exit_code"]) for one in content["runs"]] == [("clean", 0)]
    assert "tiny" in (out / "index.md").read_text()
    assert "'100.jsonl'" in (out / "clean-100" / "output.txt").read_text()


def test_a_damaged_run_is_searched_for_requests_that_share_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness is replaced by a program that writes a result and the plugin's list of one damaged request."""
    out, sabotaged = tmp_path / "out", tmp_path / "sabotage"
    told = whole_result() | {"checks": [{"name": "outputs", "findings": [finding("load-7")]}]}
    blow = {"request": "load-1", "kind": "swap", "blocks": [0, 1]}
    fake = "import pathlib, sys; p = pathlib.Path(sys.argv[sys.argv.index('--result-dir') + 1], 'latest'); p.mkdir(); "
    fake += f"p.joinpath('result.json').write_text({json.dumps(json.dumps(told))}); "
    fake += f"pathlib.Path({str(sabotaged)!r}, 'ledger.jsonl').write_text({json.dumps(json.dumps(blow))})"
    searched: list[tuple[Path, list[str]]] = []

    def sharing_in(run: Path, blows: Sequence[Blow]) -> dict[str, str]:
        searched.append((run, [one.request for one in blows]))
        return {"load-7": "load-1"}

    monkeypatch.setattr(damage, "_HARNESS", (sys.executable, "-c", fake))
    monkeypatch.setattr(damage, "empty_caches", lambda _: None)
    monkeypatch.setattr(damage, "sharing_in", sharing_in)
    attach = ["--prefill-url", "http://p", "--decode-url", "http://d", "--sabotage", str(sabotaged)]
    damage.main(["--kinds", "swap", "--seeds", "1", "--out", str(out), *attach])
    assert searched == [(out / "swap-100" / "latest", ["load-1"])]
    [run] = json.loads((out / "results.json").read_text())["runs"]
    assert run["falsely_named"] == {}
    assert [(one["request"], one["damaged"]) for one in run["sharing"]] == [("load-7", "load-1")]


def whole_result() -> dict[str, Any]:
    deployment = {"version": "0.32.0", "device": "cpu", "connector": ["nixl"], "block_size": 32}
    more = {"deployment": deployment, "model_id": "/models/tiny", "harness_version": "0.1.0", "commit": "abc"}
    return result() | more
