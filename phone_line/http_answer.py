"""The answer to an HTTP request, read from a socket before a moment and up to a bound.

Python's `http.client` reads the body: so many bytes, or chunks, or all until the end. The head is
read here. http.client reads headers as if they were mail, which made a whole command to a store on
the same machine take twice as long, and it passes over no interim answer but 100.
"""

import io
import re
import socket
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any, Final, NamedTuple, Self, cast

from phone_line.deadline import Moment, seconds_left

LARGEST_ANSWER: Final = 1 << 20  # bytes, headers included
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
    reader = AnswerReader(sock, until)
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

    def __init__(self, sock: socket.socket, until: Moment) -> None:
        """Read the head, past interim answers (100 Continue, 102 Processing, 103 Early Hints)."""
        self.source = AnswerBytes(sock, until)
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
        says_goodbye = "close" in self.fields.get("connection", "").lower()
        is_endless = self.length is None and not self.chunked
        self.will_close = says_goodbye or is_endless or minor_version == 0

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


def read_status(file: io.BufferedReader) -> tuple[int, int]:
    """Read the first line of an answer: the minor version of HTTP/1, and the status."""
    line = file.readline(LONGEST_LINE)
    if not line:
        raise RemoteDisconnected("closed without an answer")
    match = STATUS_LINE.match(line)
    if not match:
        raise HTTPException("no HTTP")
    return int(match[1]), int(match[2])


def read_headers(file: io.BufferedReader) -> dict[str, str]:
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
    """The bytes that a socket brings before a moment, up to a bound."""

    def __init__(self, sock: socket.socket, until: Moment) -> None:
        self.sock, self.until = sock, until
        self.most: float = LARGEST_ANSWER
        self.ended = False

    def readable(self) -> bool:
        """Yes: that is all it is for."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 # whatever io hands us
        """Receive what there is. Raises OSError, or HTTPException when the bound is passed."""
        if self.ended:
            return 0
        self.sock.settimeout(seconds_left(self.until))
        count = self.sock.recv_into(buffer)
        self.most -= count
        if self.most < 0:
            raise HTTPException("more bytes than an answer may have")
        return count


class AnswerFile(io.BufferedReader):
    """The same bytes as http.client wants them: as the file of a socket."""

    def __init__(self, source: AnswerBytes) -> None:
        super().__init__(source, 1 << 14)  # most answers come in one piece
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
