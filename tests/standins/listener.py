"""Somebody who opens a link to a recording, as a browser and a server do it together.

`Inside.send` reads an answer that is there. A recording comes piece by piece, may break off, and
holds its place until the server closes it.

    played = play(line, "/recordings/...", Range="bytes=0-99")
    assert played.status == 206 and played.is_whole
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import Request

from standins.inside import Inside, environ


class Played(NamedTuple):
    """The bytes that somebody got, and whether they were all."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool = True

    @property
    def words(self) -> str:
        return self.body.decode()


def begin(line: Inside, target: str, method: str = "GET", **headers: str) -> tuple[Any, list[Any]]:
    """The answer to a request as a server gets it: an iterable, and what it began with."""
    request = Request(environ(method, target, b"", headers))
    began: list[Any] = []

    def start(status: str, fields: list[tuple[str, str]], _: object = None) -> Any:  # noqa: ANN401 # as WSGI has it
        began.extend((status, fields))

    return line.line.answer(request)(request.environ, start), began


def play(line: Inside, target: str, method: str = "GET", **headers: str) -> Played:
    """Open a link, and listen to the end."""
    answer, began = begin(line, target, method, **headers)
    body = b""
    is_whole = True
    try:
        for piece in answer:
            body += piece
    except BrokenPipeError:  # what makes the server hang up, without a word in its log
        is_whole = False
    finally:
        answer.close()
    status, fields = began
    return Played(int(status.split()[0]), dict(fields), body, is_whole)
