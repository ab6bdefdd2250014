"""Credentials that a server repeats in its answer appear in no record of a run."""

import load_wire as wire
import pytest
from aiohttp import web

from harness.history import Outcome
from harness.load.answers.quoting import SHOWN
from harness.redact import redact_secrets, secrets_of

HEADERS = {"Authorization": "Bearer opens-sesame", "X-Api-Key": "k3yk3y", "X-Tenant": "prod"}


async def cause(script: wire.Script) -> str:
    ended = await wire.ask(script, headers=HEADERS)
    assert ended.outcome is not Outcome.OK
    return ended.cause


async def echoes(request: web.Request) -> web.Response:
    said = f"rejected {request.headers['Authorization']} and {request.headers['X-Api-Key']} of prod"
    return web.json_response({"error": {"message": said}}, status=500)


async def echoes_inside(request: web.Request) -> web.Response:
    return web.json_response({"error": {"message": f"no such key: {request.headers['X-Api-Key']}"}})


async def echoes_at_the_border(request: web.Request) -> web.Response:
    return web.Response(status=500, text="x" * (SHOWN - 8) + request.headers["Authorization"].partition(" ")[2])


@pytest.mark.parametrize("script", [echoes, echoes_inside, echoes_at_the_border])
async def test_repeated_headers_are_not_kept(script: wire.Script) -> None:
    """In a refusal, in an error inside a 200, and if the text is clipped within a credential."""
    kept = await cause(script)
    assert "<redacted>" in kept
    assert "k3yk3y" not in kept
    assert "opens-s" not in kept


async def test_short_values_of_other_headers_are_no_credentials() -> None:
    """The name of a tenant may appear in any sentence."""
    assert "prod" in await cause(echoes)


def test_a_password_in_a_url_is_hidden_in_each_of_its_forms() -> None:
    """As written, decoded, and as HTTP sends it."""
    secrets = secrets_of({}, ["http://me:p%40ssword@h:1", "http://h:2"])
    assert redact_secrets("p%40ssword p@ssword Basic bWU6cEBzc3dvcmQ= me", secrets) == (
        "<redacted> <redacted> Basic <redacted> me"
    )
    assert secrets_of({"X-A": "abc"}, ["http://h"]) == ()
