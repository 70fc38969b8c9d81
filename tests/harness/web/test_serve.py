"""Serving a page: where it listens, what it says of itself, and its end."""

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
from harness.web import serve
from harness.web.app import make_local_app
from harness.web.guard import AccessRules
from harness.web.serve import listen, serve_page, ui_extra


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
