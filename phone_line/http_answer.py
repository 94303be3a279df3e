"""The answer to an HTTP request, read from a socket before a moment and up to a bound.

Nearly every answer comes in one piece and says its length: it is taken apart as it is, since the
caller of a line waits for two of them. For any other Python's `http.client` reads the body: chunks,
or so many bytes, or all until the end. The head is read here in either case. http.client reads
headers as if they were mail, which made a whole command to a store on the same machine take twice
as long, and it passes over no interim answer but 100.
"""

import io
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any, Final, NamedTuple, Self, cast

from phone_line.deadline import Moment, seconds_left

LARGEST_ANSWER: Final = 1 << 20  # bytes, headers included
PIECE: Final = 1 << 14  # bytes that are received at once
LONGEST_LINE: Final = 1 << 16  # bytes of a line in the head
MOST_HEADERS: Final = 100
MOST_INTERIM: Final = 8  # answers that only announce the real one; more would be a loop
STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})\b")


class HttpAnswer(NamedTuple):
    """A whole answer; the names of its headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_answer(sock: socket.socket, until: Moment) -> tuple[HttpAnswer, bool]:
    """Read a whole answer to a POST; say if the connection can be used for another.

    Raises OSError or HTTPException.
    """
    sock.settimeout(seconds_left(until))
    piece = sock.recv(PIECE)
    return read_piece(piece) or read_pieces(piece, sock, until)


def read_piece(piece: bytes) -> tuple[HttpAnswer, bool] | None:
    """Read an answer that is whole in its first piece, and says so; None if it is not."""
    file = io.BytesIO(piece)
    with suppress(HTTPException):  # of half a head, or of a wrong one
        minor_version, status = read_status(file)
        headers = read_headers(file)
        body = file.read()
        has_length = headers.get("content-length") == str(len(body))
        if status >= 200 and has_length and "transfer-encoding" not in headers:
            return HttpAnswer(status, headers, body), may_stay(minor_version, headers)
    return None


def read_pieces(piece: bytes, sock: socket.socket, until: Moment) -> tuple[HttpAnswer, bool]:
    """Read any answer, the first piece of which has come. Raises OSError or HTTPException."""
    reader = AnswerReader(sock, until, piece)
    try:
        body = reader.read(LARGEST_ANSWER)
    except ValueError as error:  # a chunk of less than nothing
        raise HTTPException(str(error)) from None
    if reader.length:
        raise IncompleteRead(body, reader.length)
    keep = not reader.will_close and not reader.file.has_more()
    return HttpAnswer(reader.status, reader.fields, body), keep


class AnswerReader(HTTPResponse):
    """An answer whose head has been read: `status`, and the headers in `fields`."""

    def __init__(self, sock: socket.socket, until: Moment, piece: bytes | None = None) -> None:
        """Read the head, past interim answers (100 Continue, 102 Processing, 103 Early Hints).

        `piece` is what has been received of the answer already; b"" is its end.
        """
        self.source = AnswerBytes(sock, until, piece)
        self.file = AnswerFile(self.source)
        super().__init__(cast("socket.socket", self.file))
        for _ in range(MOST_INTERIM):
            minor_version, self.status = read_status(self.file)
            self.fields = read_headers(self.file)
            if self.status >= 200:
                break
        else:
            raise HTTPException("announced again and again")
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = self.body_length()
        is_endless = self.length is None and not self.chunked
        self.will_close = is_endless or not may_stay(minor_version, self.fields)

    def body_length(self) -> int | None:
        """Tell how long the body is; None for chunks, or for a body up to the connection's end."""
        if self.status in (204, 304):
            return 0
        length = self.fields.get("content-length")
        if length is None or self.chunked:
            return None
        if not (length.isascii() and length.isdigit()):
            raise HTTPException("a length that is none")
        return int(length)


def may_stay(minor_version: int, headers: Mapping[str, str]) -> bool:
    """Tell whether the server lets its connection stay, by the head of its answer."""
    return minor_version == 1 and "close" not in headers.get("connection", "").lower()


def read_status(file: io.BufferedIOBase) -> tuple[int, int]:
    """Read the first line of an answer: the minor version of HTTP/1, and the status."""
    line = file.readline(LONGEST_LINE)
    if not line:
        raise RemoteDisconnected("closed without an answer")
    match = STATUS_LINE.match(line)
    if not match:
        raise HTTPException("no HTTP")
    return int(match[1]), int(match[2])


def read_headers(file: io.BufferedIOBase) -> dict[str, str]:
    """Read headers up to the empty line, by their names in small letters."""
    headers = {}
    for _ in range(MOST_HEADERS):
        line = file.readline(LONGEST_LINE).decode("latin-1")
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
        elif line in ("\r\n", "\n"):
            return headers
        else:
            break
    raise HTTPException("headers that do not end")


class AnswerBytes(io.RawIOBase):
    """The bytes that a socket has brought, and brings before a moment, up to a bound."""

    def __init__(self, sock: socket.socket, until: Moment, piece: bytes | None) -> None:
        self.sock, self.until, self.piece = sock, until, piece
        self.most: float = LARGEST_ANSWER
        self.ended = False

    def readable(self) -> bool:
        """Yes: that is all it is for."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 # whatever io hands us
        """Receive what there is. Raises OSError, or HTTPException when the bound is passed."""
        if self.ended:
            return 0
        if self.piece is not None:
            count = len(self.piece)  # the file has room for it
            buffer[:count], self.piece = self.piece, None
        else:
            self.sock.settimeout(seconds_left(self.until))
            count = self.sock.recv_into(buffer)
        self.most -= count
        if self.most < 0:
            raise HTTPException("more bytes than an answer may have")
        return count


class AnswerFile(io.BufferedReader):
    """The same bytes as http.client wants them: as the file of a socket."""

    def __init__(self, source: AnswerBytes) -> None:
        super().__init__(source, PIECE)
        self.source = source

    def makefile(self, _mode: str) -> Self:
        """Be that file, which is all that http.client asks of a socket."""
        return self

    def close(self) -> None:
        """Stay open where http.client closes it: what came after the answer is still in it."""

    def has_more(self) -> bool:
        """Find bytes that came with the answer and do not belong to it."""
        self.source.ended = True
        return bool(self.peek(1))
