"""Serving a page: its address, its log lines, and its end."""

import os
import re
import signal
import socket
import sys
import threading
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs the ui extra: pip install fastapi uvicorn")

from harness.errors import UserError
from harness.web import protocol, serve
from harness.web.app import make_local_app
from harness.web.guard import AccessRules
from harness.web.serve import listen, serve_page, ui_extra


def test_listens_where_it_is_told_to():
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1" and listener.proto == socket.IPPROTO_TCP
        with pytest.raises(UserError, match="--port: found 127.0.0.1:.* cannot be used"):
            listen("127.0.0.1", listener.getsockname()[1])
    for host in ("203.0.113.1", "no.such.host.invalid"):
        with pytest.raises(UserError, match="HOST: found '.*', which is not an address of this machine"):
            listen(host, 0)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_one_line(missing, monkeypatch):
    with pytest.raises(ModuleNotFoundError), ui_extra("clinic"):
        import no_such_module_of_ours  # type: ignore[import-not-found]  # noqa: F401
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"ui extra: {missing} is not installed, and the clinic is a web page"):
        with ui_extra("clinic"):
            import fastapi  # noqa: F401


def test_it_says_where_it_is_and_ends_at_a_signal(monkeypatch, capsys):
    app = make_local_app(AccessRules("page"), [])
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


def test_a_connection_on_which_nothing_comes_is_closed(monkeypatch):
    """One that never speaks, one that stops in its request, one in its body; an answer may take as long as it likes."""
    monkeypatch.setattr(protocol, "SILENT_SEC", 0.4)
    app, closed, answer = make_local_app(AccessRules("page"), []), [], []

    @app.get("/slow")
    def slow() -> str:
        threading.Event().wait(1.5)
        return "at last"

    def visit(address: str) -> None:
        host, port = address.removeprefix("http://").strip("/").split(":")
        head = f"Host: {host}:{port}\r\n"
        begun = ["", "GET / HT", f"POST /slow HTTP/1.1\r\n{head}Content-Length: 9\r\n\r\nab"]

        def all_of_it() -> None:
            with socket.create_connection((host, int(port)), 20) as asking:
                asking.sendall(f"GET /slow HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
                answer.append(asking.makefile("rb").read())
            for text in begun:
                with socket.create_connection((host, int(port)), 20) as silent:
                    silent.sendall(text.encode())
                    while silent.recv(1000):
                        pass
                    closed.append(text)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=all_of_it).start()

    monkeypatch.setattr(serve.webbrowser, "open", visit)
    serve_page(app, "127.0.0.1", 0, "the page is open", True)
    assert answer[0].endswith(b'"at last"') and len(closed) == 3
