"""HTTP of the local pages, with an end to connections on which nothing comes. Needs uvicorn (the ui extra)."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENT_SEC = 60.0  # a client that is to speak, and does not, for so long has gone


class PatientProtocol(H11Protocol):
    """uvicorn's, which waits for ever for a request, or a body, that was begun and is not finished."""

    heard_at_sec: float
    _watch: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.heard_at_sec = self.loop.time()
        self._look_again_in(SILENT_SEC)

    def data_received(self, data: bytes) -> None:
        self.heard_at_sec = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def _look_again_in(self, seconds: float) -> None:
        self._watch = self.loop.call_later(seconds, self._close_if_silent)

    def _close_if_silent(self, *_: Any) -> None:
        left_sec = self.heard_at_sec + SILENT_SEC - self.loop.time()
        is_clients_turn = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)  # else an answer is under way
        if is_clients_turn and left_sec <= 0:
            self.transport.close()
        else:
            self._look_again_in(max(left_sec, SILENT_SEC / 4))
