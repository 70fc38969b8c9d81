"""HTTP protocol of the local pages that closes silent connections. Needs uvicorn (the ui extra)."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENT_SEC = 60.0  # after which a client that owes us bytes is disconnected


class PatientProtocol(H11Protocol):
    """uvicorn's protocol would wait for ever for an unfinished request or body."""

    received_at_sec: float
    _timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.received_at_sec = self.loop.time()
        self._check_again_in(SILENT_SEC)

    def data_received(self, data: bytes) -> None:
        self.received_at_sec = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _check_again_in(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._close_if_silent)

    def _close_if_silent(self, *_: Any) -> None:
        left_sec = self.received_at_sec + SILENT_SEC - self.loop.time()
        is_clients_turn = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)  # otherwise a response is pending
        if is_clients_turn and left_sec <= 0:
            self.transport.close()
        else:
            self._check_again_in(max(left_sec, SILENT_SEC / 4))
