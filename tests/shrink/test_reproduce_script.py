"""The script of a bug report: its exit code shows the result, and is never 0 if an answer is missing."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from proxy_fakes import PARAMS, Script, answering, closed_port, running

from harness.scenario import Request, Route, Sampling
from harness.shrink import ScriptContent, script

BASH = shutil.which("bash") or "bash"
RIGHT, WRONG = ({"choices": [{"index": 0, "token_ids": ids, "finish_reason": "length"}]} for ids in ([5, 6], [5, 7]))
SAME, DIFFERS, USAGE, UNKNOWN = 0, 1, 2, 3


def request(number: int = 0, **fields: Any) -> Request:
    return replace(Request(f"load-{number}", (1, 2, 3), Sampling(max_tokens=2)), **fields)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


async def run(content: ScriptContent, directory: Path, **environment: str) -> Done:
    """Run the script in an environment with only these variables, without proxies."""
    path = directory / "reproduce.sh"
    path.write_text(script(content))
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *(BASH, str(path)),
        env={**clean, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def served_by(
    directory: Path, clean: Script, served: Script, *requests: Request, content: Mapping[str, Any] | None = None
) -> Done:
    """Run the script where P answers references like ``clean``, and the proxy answers like ``served``."""
    async with running(clean) as p, running(served) as proxy:
        about = ScriptContent((requests or (request(),),), 2, (), "m", p.url, p.url, proxy.url)
        return await run(replace(about, **(content or {})), directory, TIMEOUT="5", PAUSE="0")


async def broken_in_the_middle(asked: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(asked)
    await response.write(b'{"choices": [{"token_ids": [5, 6]}]}')
    assert asked.transport is not None
    asked.transport.close()
    return response


async def never(_asked: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("this event is never set")


def body(text: str, status: int = 200) -> Script:
    async def answer(_asked: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return answer


@pytest.mark.parametrize(("served", "code"), [(RIGHT, SAME), (WRONG, DIFFERS)])
async def test_whole_answers_are_compared(tmp_path: Path, served: Any, code: int) -> None:
    done = await served_by(tmp_path, answering(200, RIGHT), answering(200, served))
    assert (done.code, done.err) == (code, ""), done.out
    assert f"request 0: {'DIFFERS' if code else 'right'}" in done.out


UNANSWERED = {
    "an error with words": (answering(404, {"error": {"message": "The model m does not exist"}}), "does not exist"),
    "an error without JSON": (body("Bad Gateway", 502), "HTTP 502: Bad Gateway"),
    "an error inside a 200": (answering(200, {"error": {"message": "upstream said no"}}), "upstream said no"),
    "an answer that is a string": (answering(200, "overloaded"), "overloaded"),
    "no token ids": (answering(200, {"choices": [{"text": "hello"}]}), "no token ids"),
    "empty token ids": (answering(200, {"choices": [{"token_ids": []}]}), "no token ids"),
    "null token ids": (answering(200, {"choices": [{"token_ids": None}]}), "no token ids"),
    "no choices": (answering(200, {"choices": []}), "no token ids"),
    "an aborted answer": (
        answering(200, {"choices": [{"token_ids": [5, 6], "finish_reason": "abort"}]}),
        "finish_reason abort",
    ),
    "a redirect": (body("", 302), "HTTP 302"),
    "nothing": (body(""), "no token ids"),
    "a broken answer": (broken_in_the_middle, "no complete answer"),
}


@pytest.mark.parametrize("name", UNANSWERED)
@pytest.mark.parametrize("both", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_missing_answers_are_unknown_and_the_servers_message_is_shown(
    tmp_path: Path, name: str, both: bool
) -> None:
    served, words = UNANSWERED[name]
    done = await served_by(tmp_path, served if both else answering(200, RIGHT), served)
    assert done.code == UNKNOWN, done.out + done.err
    assert words in done.out
    assert ": right" not in done.out


@pytest.mark.slow
async def test_a_server_that_never_answers_ends_the_script_in_time(tmp_path: Path) -> None:
    async with running(never) as p:
        content = ScriptContent(((request(),),), 1, (), "m", p.url, p.url, p.url)
        done = await run(content, tmp_path, TIMEOUT="0.2")
    assert done.code == UNKNOWN
    assert "timed out" in done.out


@pytest.mark.slow
async def test_servers_that_are_gone_make_the_result_unknown(tmp_path: Path) -> None:
    nowhere = await closed_port()
    done = await run(ScriptContent(((request(),),), 1, (), "m", nowhere, nowhere, None), tmp_path)
    assert done.code == UNKNOWN
    assert "onnect" in done.out, "curl's own message"


@pytest.mark.slow
async def test_a_wrong_answer_counts_although_another_is_missing(tmp_path: Path) -> None:
    async def served(asked: web.Request) -> web.Response:
        if asked.headers["X-Request-Id"] == "load-0":
            return web.json_response({"message": "busy"}, status=503)
        return web.json_response(WRONG)

    done = await served_by(tmp_path, answering(200, RIGHT), served, request(0), request(1))
    assert done.code == DIFFERS
    assert "request 0: UNKNOWN" in done.out
    assert "HTTP 503: busy" in done.out


@pytest.mark.slow
async def test_a_failure_among_several_at_once_is_not_hidden(tmp_path: Path) -> None:
    async def served(asked: web.Request) -> web.Response:
        return web.json_response(RIGHT, status=500 if asked.headers["X-Request-Id"] == "load-1" else 200)

    done = await served_by(tmp_path, answering(200, RIGHT), served, *map(request, range(5)))
    assert done.code == UNKNOWN, done.out
    assert done.out.count(": right") == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(200, RIGHT), "no kv_transfer_params"),
        (answering(200, RIGHT | {"kv_transfer_params": None}), "no kv_transfer_params"),
        (answering(200, RIGHT | {"kv_transfer_params": PARAMS | {"remote_block_ids": []}}), "no kv_transfer_params"),
        (answering(200, {"error": {"message": "out of blocks"}}), "out of blocks"),
        (answering(500, {"error": {"message": "engine dead"}}), "HTTP 500: engine dead"),
    ],
)
async def test_without_a_proxy_missing_kv_transfer_params_make_the_result_unknown(
    tmp_path: Path, answer: Script, words: str
) -> None:
    async def p(asked: web.Request) -> web.StreamResponse:
        return await (answering(200, RIGHT) if asked.headers["X-Request-Id"].endswith("-clean") else answer)(asked)

    async with running(p) as prefill, running(answering(200, RIGHT)) as decode:
        done = await run(ScriptContent(((request(),),), 1, (), "m", prefill.url, decode.url, None), tmp_path)
        assert decode.seen == [], "without block ids nothing is forwarded"
    assert done.code == UNKNOWN, done.out + done.err
    assert words in done.out


async def test_without_a_proxy_the_parameters_are_copied(tmp_path: Path) -> None:
    async with (
        running(answering(200, RIGHT | {"kv_transfer_params": PARAMS})) as p,
        running(answering(200, RIGHT)) as d,
    ):
        done = await run(ScriptContent(((request(),),), 1, (), "m", p.url, d.url, None), tmp_path)
        assert (done.code, done.err) == (SAME, ""), done.out
        assert d.body["kv_transfer_params"] == PARAMS


@pytest.mark.slow
async def test_a_cache_that_was_not_emptied_makes_the_result_unknown(tmp_path: Path) -> None:
    async def p(asked: web.Request) -> web.Response:
        return web.json_response({"success": False}) if "reset" in asked.path else web.json_response(RIGHT)

    probe = request(9, route=Route.PREFILL)
    done = await served_by(tmp_path, p, answering(200, RIGHT), content={"probes": (probe,), "reset": True})
    assert done.code == UNKNOWN, done.out + done.err
    assert "was not emptied" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(tmp_path: Path, name: str) -> None:
    nowhere = await closed_port()
    async with running(answering(200, RIGHT)) as p:
        content = ScriptContent(((request(),),), 1, (), "m", p.url, p.url, p.url.replace("127.0.0.1", "localhost"))
        done = await run(content, tmp_path, **{name: nowhere, "no_proxy": "example.org"})
    assert (done.code, done.err) == (SAME, ""), done.out


@pytest.mark.slow
async def test_a_proxy_of_the_environment_is_used_for_other_machines(tmp_path: Path) -> None:
    async with running(answering(200, RIGHT)) as gateway:
        content = ScriptContent(((request(),),), 1, (), "m", "http://p.example:1", "http://d.example:2", None)
        await run(content, tmp_path, http_proxy=gateway.url)
        assert {asked.host for asked in gateway.seen} == {"p.example"}


async def test_a_headers_value_comes_from_the_environment_and_is_not_an_argument(tmp_path: Path) -> None:
    async with running(answering(200, RIGHT)) as p:
        content = ScriptContent(((request(),),), 1, (), "m", p.url, p.url, p.url, header_names=("X-Api-Key",))
        missing = await run(content, tmp_path)
        assert (missing.code, p.seen) == (USAGE, [])
        assert "set it to the value of the header X-Api-Key" in missing.err
        given = await run(content, tmp_path, HEADER_X_API_KEY="sesame $(id)")
        assert given.code == SAME, given.out + given.err
        assert {asked.headers["X-Api-Key"] for asked in p.seen} == {"sesame $(id)"}
        assert "${HEADER" not in script(content).partition("curl -")[2], "every user can see curl's arguments"


async def test_credentials_of_a_url_are_required_and_not_written(tmp_path: Path) -> None:
    async with running(answering(200, RIGHT)) as p:
        secret = p.url.replace("//", "//user:sesame@")
        content = ScriptContent(((request(),),), 1, (), "m", secret, p.url, None)
        assert "sesame" not in script(content)
        missing = await run(content, tmp_path)
        assert (missing.code, p.seen) == (USAGE, [])
        assert "set it to the URL with its credentials" in missing.err
        given = await run(content, tmp_path, P=secret, PROXY=p.url)
        assert given.code == SAME, given.out + given.err
        assert p.seen[0].headers["Authorization"].startswith("Basic ")
        assert "sesame" not in given.out + given.err


@pytest.mark.parametrize("tool", ["curl", "python3"])
async def test_a_missing_tool_is_named(tmp_path: Path, tool: str) -> None:
    other = {"curl": "python3", "python3": "curl"}[tool]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / other).symlink_to(shutil.which(other) or other)
    done = await run(
        ScriptContent(((request(),),), 1, (), "m", "http://p", "http://d", None), tmp_path, PATH=f"{tmp_path}/bin"
    )
    assert (done.code, done.err) == (USAGE, f"{tool} is missing: install it.\n")


def test_the_comment_at_the_top_lists_each_exit_code() -> None:
    head = script(ScriptContent(((request(),),), 1, (), "m", "http://p", "http://d", None)).splitlines()[:12]
    assert [line.split()[1] for line in head if line.startswith("#   ") and line.split()[1].isdigit()] == list("0123")


def test_a_comment_of_several_lines_is_not_executed(tmp_path: Path) -> None:
    content = ScriptContent(
        ((request(),),), 1, (), "m", "http://p", "http://d", None, about=(f"one\ntouch {tmp_path}/hacked",)
    )
    assert "\ntouch" not in script(content)
