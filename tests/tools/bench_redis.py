"""Redis for the bench: the commands that its contestants use, in Upstash's dialect, in memory.

    python tests/tools/bench_redis.py SECONDS [CERTIFICATE]

Answers each request after so many seconds, over TLS if there is a certificate. Its first line of
output is the port; whoever asks it for `GET /` is told what it was asked for so far.
"""

import asyncio
import json
import re
import ssl
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

HEAD: Final = (  # as long as the service's own: to read headers takes time, too
    b"HTTP/1.1 200 OK\r\nDate: Mon, 05 Jan 2026 09:00:00 GMT\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nUpstash-Sync-Token: 0123456789abcdefg"
    b"\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n\r\n"
)


class Cells(asyncio.Protocol):
    """The commands that the contestants use, in Upstash's dialect. Nothing expires."""

    latency = 0.0
    held: Final[dict[str, str]] = {}
    counted: Final = Counter[str]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, rest = self.waiting.partition(b"\r\n\r\n")
        lines = head.lower()
        length = re.search(rb"content-length: *(\d+)", lines)
        size = int(length[1]) if length else 0
        if not found or len(rest) < size:
            return
        self.waiting = rest[size:]
        if lines.startswith(b"get "):
            self.send(self.report())
        else:
            self.obey(json.loads(rest[:size]), b"upstash-encoding" in lines)

    def obey(self, request: list[Any], in_base64: bool) -> None:
        """Answer one command, or several of them (/pipeline), after the latency."""
        self.counted["round_trips"] += 1
        commands = request if isinstance(request[0], list) else [request]
        answers = []
        for command in commands:
            result = self.run([str(word) for word in command])
            answers.append({"result": encoded(result) if in_base64 else result})
        answer = answers if isinstance(request[0], list) else answers[0]
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self.send, answer)
        else:
            self.send(answer)

    def send(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.transport.write(HEAD % len(body) + body)

    def run(self, command: list[str]) -> object:
        name, *words = command
        self.counted["commands"] += 1
        match name.upper():
            case "GET" | "GETEX":
                return self.held.get(words[0])
            case "MGET":
                return [self.held.get(key) for key in words]
            case "SET":
                return self.set(words[0], words[1], words[2:])
            case "DEL":
                return sum(self.held.pop(key, None) is not None for key in words)
            case _:
                raise ValueError(command)

    def set(self, key: str, value: str, options: Sequence[str]) -> str | None:
        old = self.held.get(key)
        if old is None or "NX" not in options:
            self.held[key] = value
        return old if "GET" in options else "OK"

    def report(self) -> dict[str, int]:
        size = sum(len(value.encode()) for value in self.held.values())
        return {**self.counted, "cells": len(self.held), "bytes": size}


def encoded(result: object) -> object:
    """A result as `Upstash-Encoding: base64` has it: every string but a plain OK."""
    if isinstance(result, list):
        return [encoded(element) for element in result]
    if not isinstance(result, str) or result == "OK":
        return result
    return b64encode(result.encode()).decode()


async def stand_in(latency: float, certificate: str = "") -> None:
    """Serve until killed; the first line on stdout is the port."""
    Cells.latency, context = latency, None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Cells, "127.0.0.1", 0, ssl=context, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    seconds, *certificate = sys.argv[1:]
    asyncio.run(stand_in(float(seconds), *certificate))
