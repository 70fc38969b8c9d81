"""Serving a page: where it listens, what it says of itself, how it refuses what fails, and its end."""

import errno
import os
import re
import signal
import socket
import sys
import threading
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs the ui extra: pip install fastapi uvicorn")
from starlette.testclient import TestClient

from harness.errors import UserError
from harness.web import serve
from harness.web.app import RequestBody, make_local_app
from harness.web.guard import Rules
from harness.web.serve import listen, serve_page, ui_extra

HERE = "http://127.0.0.1"


@pytest.fixture
def app(tmp_path):
    (tmp_path / "a.css").write_text("p {}")
    (tmp_path / "secret.txt").write_text("secret")
    return make_local_app(Rules("page"), tmp_path.iterdir())


def test_listens_where_it_is_told_to():
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1" and listener.proto == socket.IPPROTO_TCP
        with pytest.raises(UserError, match="--port: found 127.0.0.1:.* cannot be used"):
            listen("127.0.0.1", listener.getsockname()[1])
    for host in ("203.0.113.1", "no.such.host.invalid"):
        with pytest.raises(UserError, match="HOST: found '.*', which is no address of this machine"):
            listen(host, 0)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_one_line(missing, monkeypatch):
    with pytest.raises(ModuleNotFoundError), ui_extra("clinic"):
        import no_such_module_of_ours  # type: ignore[import-not-found]  # noqa: F401
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"ui extra: {missing} is not installed, and the clinic is a web page"):
        with ui_extra("clinic"):
            import fastapi  # noqa: F401


def test_it_says_where_it_is_and_ends_at_a_signal(app, monkeypatch, capsys):
    opened: list[str] = []
    closing, before = threading.Event(), signal.getsignal(signal.SIGTERM)

    @app.get("/")
    def page() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert closing.wait(20)

    def visit(address: str) -> None:
        opened.append(address)
        threading.Thread(target=urllib.request.urlopen, args=(address,), kwargs={"timeout": 30}).start()

    monkeypatch.setattr(serve.webbrowser, "open", visit)
    serve_page(app, "127.0.0.1", 0, "the page is open", True, closing.set)
    out, err = capsys.readouterr()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", out) and opened == [out.strip()]
    assert err == "the page is open; Ctrl-C closes it\n" and signal.getsignal(signal.SIGTERM) == before


def test_scripts_and_styles_are_there_and_nothing_else(app):
    client = TestClient(app, base_url=HERE)
    assert client.get("/static/a.css").headers["content-type"].startswith("text/css")
    for path in ("/static/secret.txt", "/static/..%2fa.css", "/never"):
        answer = client.get(path)
        assert answer.status_code == 404 and list(answer.json()) == ["error"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_what_fails_is_refused_in_one_line(app):
    class Number(RequestBody):
        value: int

    errors = {"disk": OSError(errno.ENOSPC, "No space left on device", "a.csv"), "bug": OSError(errno.ENOENT, "gone")}
    errors["user"] = UserError("a: found 1,\n  allowed 2")

    @app.get("/{name}")
    def fail(name: str) -> None:
        raise errors[name]

    @app.post("/number")
    def take(number: Number) -> None: ...

    client = TestClient(app, base_url=HERE, headers={"Origin": HERE})
    assert client.get("/user").json() == {"error": "a: found 1, allowed 2"}
    assert client.get("/disk").status_code == 507 and "a.csv: No space left" in client.get("/disk").json()["error"]
    with pytest.raises(FileNotFoundError):
        client.get("/bug")
    assert client.post("/number", json={"value": 1}).status_code == 200
    for content in ({"value": "1"}, {"value": 1, "more": 2}, {}):
        answer = client.post("/number", json=content)
        assert answer.status_code == 422 and answer.json()["error"].startswith("body.")
