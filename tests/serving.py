"""An application of ours on a free port, for a browser or many clients."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.web.serve import listen


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Its address, while the block runs."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs the ui extra: pip install fastapi uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)
