"""Results are pushed to a Pushgateway; what fails is a line without credentials."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families
from run_fixtures import DEPLOYMENT, HISTORY, VALID

from harness.deploy.ports import free_ports
from harness.reports import LoadSettings, Report, make_report
from harness.reports.files import pushgateway
from harness.reports.files.pushgateway import push
from harness.reports.requests import request_rows


@dataclass
class Gateway:
    """What was pushed."""

    url: str = ""
    status: int = 200
    asked: list[tuple[str, str, str | None, str]] = field(default_factory=list)
    """Method, path, credentials and body."""


@contextmanager
def gateway(status: int = 200) -> Iterator[Gateway]:
    found = Gateway(status=status)

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def report(label: str = "nightly") -> Report:
    return make_report(DEPLOYMENT, HISTORY, VALID, load=LoadSettings(2, label=label))


def pushed(url: str, label: str = "nightly") -> str:
    made = report(label)
    return push(made, request_rows(made.deployment, made.history, made.judgement), url)


@pytest.mark.parametrize(
    ("label", "path"),
    [
        ("nightly", "/metrics/job/pd_harness/label/nightly"),
        ("", "/metrics/job/pd_harness"),
        ("a/b", "/metrics/job/pd_harness/label@base64/YS9i"),
    ],
)
def test_results_replace_those_of_the_last_run_with_the_label(label: str, path: str) -> None:
    with gateway() as found:
        assert pushed(found.url, label) == ""
    ((method, asked, credentials, body),) = found.asked
    assert (method, asked, credentials) == ("PUT", path, None)
    samples = [one for family in text_string_to_metric_families(body) for one in family.samples]
    assert {"pd_harness_run_verdict", "pd_harness_ttft_seconds"} <= {one.name for one in samples}
    assert {one.labels["label"] for one in samples} == {label}, "else the gateway refuses the group"


def test_credentials_in_the_url_are_sent_as_a_header() -> None:
    with gateway() as found:
        assert pushed(found.url.replace("//", "//user:p%40ss@")) == ""
    ((_, path, credentials, _),) = found.asked
    assert credentials == f"Basic {base64.b64encode(b'user:p@ss').decode()}"
    assert "ss@" not in path


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_a_gateway_that_refuses_is_one_line_without_credentials(status: int) -> None:
    with gateway(status) as found:
        why = pushed(found.url.replace("//", "//user:sesame@"))
    assert why.startswith(f"http://<redacted>@127.0.0.1:{found.url.rpartition(':')[2]} answered {status} ")
    assert len(why.splitlines()) == 1
    assert "sesame" not in why


def test_a_gateway_that_is_away_is_one_line_without_credentials() -> None:
    why = pushed(f"http://user:sesame@127.0.0.1:{free_ports(1)[0]}")
    assert "Connection refused" in why
    assert len(why.splitlines()) == 1
    assert "sesame" not in why


def test_a_push_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def hang(*_: object, timeout: float, **__: object) -> None:
        given.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(pushgateway, "push_to_gateway", hang)
    assert pushed("http://gateway:9091") == "http://gateway:9091: timed out"
    assert given == [10.0]
