"""A request and its response, between uvicorn's protocol and the application."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class Exchange(RequestResponseCycle):
    """A request and its response. The head waits for the first piece of the body, so that
    most responses are one write: two cost more than everything else that happens here."""

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head_bytes = self._written(message)
            return
        body = b"" if self.scope["method"] == "HEAD" else message.get("body", b"")
        self.transport.write(self._head_bytes + body)
        self._head_bytes = b""
        if not message.get("more_body", False):
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _written(self, message: Any) -> bytes:
        headers = [*self.default_headers, *message["headers"]]
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        head = b"".join([b"%b: %b\r\n" % header for header in headers])
        if head.count(b"\n") != len(headers):
            raise RuntimeError("a header's value has a line break")
        return STATUS_LINE[message["status"]] + head + b"\r\n"
