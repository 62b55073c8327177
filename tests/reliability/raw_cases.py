"""What a stranger may send to a socket, and how it ends: the statuses of all answers until the node closes."""

from __future__ import annotations

import gzip
import json
from typing import Any, Literal, NamedTuple

Step = bytes | float | Literal["end", "reset"]
"""Bytes to send; seconds to wait; ``end`` of what is sent; ``reset`` of the connection."""
DEADLINE_S = 30.0
"""By then every connection is closed, however busy the machine is: the node of these cases waits half a second for
headers and bodies, a second between requests, and for ever where it forgets to."""


class Case(NamedTuple):
    """A conversation by bytes."""

    name: str
    steps: tuple[Step, ...]
    statuses: tuple[int, ...]
    """Of the answers in their order; none: the connection is closed without one."""


HOST = b"Host: localhost\r\n"
GET = b"GET /ready HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /ready HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
CHAT: dict[str, Any] = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
BODY = json.dumps(CHAT).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
HIDDEN = (
    b"POST /models/unload HTTP/1.1\r\n" + HOST + JSON + b'Content-Length: 24\r\n\r\n{"model_id": "org/tiny"}'
)
"""A request inside another; nothing may take it for one."""


def post(*headers: bytes, body: bytes = BODY, path: bytes = b"/v1/chat/completions") -> bytes:
    """A POST with its headers as they are written."""
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + JSON + b"".join(headers) + b"\r\n" + body


def get(target: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    """A request without a body, the last of its connection."""
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"".join(headers) + b"Connection: close\r\n\r\n"


SMUGGLING = [
    Case("both lengths", (post(LENGTH, CHUNKED, body=b"0\r\n\r\n" + HIDDEN),), (400,)),
    Case("both lengths, the other way round", (post(CHUNKED, LENGTH, body=b"0\r\n\r\n" + HIDDEN),), (400,)),
    Case("two lengths", (post(LENGTH, b"Content-Length: 5\r\n"),), (400,)),
    Case("one length twice", (post(LENGTH, LENGTH),), (200,)),
    Case("a list of lengths", (post(b"Content-Length: 5, 6\r\n"),), (400,)),
    Case("a length with a plus", (post(b"Content-Length: +5\r\n"),), (400,)),
    Case("a negative length", (post(b"Content-Length: -1\r\n"),), (400,)),
    Case("a hexadecimal length", (post(b"Content-Length: 0x5\r\n"),), (400,)),
    Case("a length in powers", (post(b"Content-Length: 1e1\r\n"),), (400,)),
    Case("a length of 5000 digits", (post(b"Content-Length: " + b"9" * 5000 + b"\r\n"),), (400,)),
    Case("a length of 19 digits", (post(b"Content-Length: 9223372036854775807\r\n"),), (408,)),
    Case("a length of another script", (post("Content-Length: ٥\r\n".encode()),), (400,)),
    Case("an empty length", (post(b"Content-Length: \r\n"),), (400,)),
    Case("two codings", (post(b"Transfer-Encoding: chunked, identity\r\n", body=CHUNKS),), (400,)),
    Case("a coding of no kind", (post(b"Transfer-Encoding: xchunked\r\n", body=CHUNKS),), (400,)),
    Case("the coding that is none", (post(b"Transfer-Encoding: identity\r\n"),), (400,)),
    Case("a coding twice", (post(CHUNKED, CHUNKED, body=CHUNKS),), (400,)),
    Case("a blank before the colon", (post(b"Transfer-Encoding : chunked\r\n", body=CHUNKS),), (400,)),
    Case(
        "a vertical tab before the coding", (post(b"Transfer-Encoding:\x0bchunked\r\n", body=CHUNKS),), (400,)
    ),
    Case("a coding with an underscore", (post(b"Transfer_Encoding: chunked\r\n", body=b""),), (400,)),
    Case("chunks in HTTP/1.0", (post(CHUNKED, body=CHUNKS).replace(b"/1.1", b"/1.0"),), (400,)),
    Case(
        "a request in the body of a GET",
        (get(b"/ready", b"Content-Length: %d\r\n" % len(HIDDEN)) + HIDDEN,),
        (200,),
    ),
    Case("a request after the last one", (LAST + HIDDEN,), (200,)),
    Case("a request after what is refused", (get(b"/ready", b"Origin: http://evil\r\n") + HIDDEN,), (403,)),
    Case("a request after a body that is refused", (post(LENGTH, b"Origin: null\r\n") + HIDDEN,), (403,)),
    Case("a length that is too small", (post(b"Content-Length: 10\r\n"),), (400, 408)),
]
LINES = [
    Case("nothing but a method", (b"GET\r\n\r\n",), (400,)),
    Case("no version", (b"GET /ready\r\n\r\n",), (400,)),
    Case("HTTP/2.0", (LAST.replace(b"HTTP/1.1", b"HTTP/2.0"),), (400,)),
    Case("the preface of HTTP/2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), (400,)),
    Case("HTTP/9.9", (LAST.replace(b"HTTP/1.1", b"HTTP/9.9"),), (400,)),
    Case("HTTP/1.1 in small letters", (LAST.replace(b"HTTP/1.1", b"http/1.1"),), (400,)),
    Case("a hello of TLS", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",), (400,)),
    Case("noise", (bytes(range(256)) * 4,), (400,)),
    Case("a method in small letters", (get(b"/ready", method=b"get"),), (405,)),
    Case("a method of no kind", (get(b"/ready", method=b"FETCH"),), (405,)),
    Case("a method of 10 KB", (get(b"/ready", method=b"A" * 10_000),), (405,)),
    Case("TRACE", (get(b"/ready", method=b"TRACE"),), (405,)),
    Case("CONNECT", (get(b"localhost:80", method=b"CONNECT"),), (404,)),
    Case("OPTIONS of everything", (get(b"*", method=b"OPTIONS"),), (404,)),
    Case("the whole address", (get(b"http://localhost/ready"),), (404,)),
    Case("the whole address of another", (get(b"http://evil.example/ready"),), (404,)),
    Case("a blank in the target", (get(b"/rea dy"),), (400,)),
    Case("a zero in the target", (get(b"/rea\0dy"),), (400,)),
    Case("bytes in the target", (get(b"/\xff\xfe"),), (400,)),
    Case("a target of 10 KB", (get(b"/" + b"a" * 10_000),), (404,)),
    Case("a target of 200 KB", (get(b"/" + b"a" * 200_000),), (400,)),
    Case("a query of 50 KB", (get(b"/ready?" + b"a=b&" * 12_500),), (200,)),
    Case("two slashes", (get(b"//ready"),), (200,)),
    Case("up and down", (get(b"/models/../ready"),), (404,)),
    Case("up and down, written in hex", (get(b"/models/%2e%2e/ready"),), (404,)),
    Case("a zero written in hex", (get(b"/ready%00"),), (404,)),
    Case("a path in capitals", (get(b"/READY"),), (404,)),
    Case("blank lines first", (b"\r\n\r\n" + LAST,), (400,)),
    Case("a blank first", (b" " + LAST,), (400,)),
    Case("lines that end in LF", (LAST.replace(b"\r\n", b"\n"),), (200,)),
    Case("lines that end in CR", (LAST.replace(b"\r\n", b"\r"),), (408,)),
]
HEADERS = [
    Case("no host", (LAST.replace(HOST, b""),), (400,)),
    Case("no host in HTTP/1.0", (b"GET /ready HTTP/1.0\r\n\r\n",), (403,)),
    Case("two hosts", (LAST.replace(HOST, HOST * 2),), (400,)),
    Case("an empty host", (LAST.replace(HOST, b"Host:\r\n"),), (403,)),
    Case("a path in the host", (LAST.replace(HOST, b"Host: localhost/ready?x=\r\n"),), (403,)),
    Case("98 headers more", (get(b"/ready", b"a: b\r\n" * 98),), (200,)),
    Case("99 headers more", (get(b"/ready", b"a: b\r\n" * 99),), (400,)),
    Case("5000 headers more", (get(b"/ready", b"a: b\r\n" * 5000),), (400,)),
    Case("a header of 30 KB", (get(b"/ready", b"x: " + b"a" * 30_000 + b"\r\n"),), (200,)),
    Case("a header of 200 KB", (get(b"/ready", b"x: " + b"a" * 200_000 + b"\r\n"),), (400,)),
    Case("a name of 30 KB", (get(b"/ready", b"a" * 30_000 + b": x\r\n"),), (200,)),
    Case("a folded header", (get(b"/ready", b"x: a\r\n b\r\n"),), (200,)),
    Case("a fold before any header", (b"GET /ready HTTP/1.1\r\n x: y\r\n" + HOST + b"\r\n",), (400,)),
    Case("a header without a colon", (get(b"/ready", b"hello\r\n"),), (400,)),
    Case("a header without a name", (get(b"/ready", b": x\r\n"),), (400,)),
    Case("a blank in a name", (get(b"/ready", b"a b: x\r\n"),), (400,)),
    Case("bytes in a name", (get(b"/ready", b"\xc3\xa9: x\r\n"),), (400,)),
    Case("bytes in a value", (get(b"/ready", b"x: \xc3\xa9\r\n"),), (200,)),
    Case("a zero in a value", (get(b"/ready", b"x: a\0b\r\n"),), (400,)),
    Case("an escape in a value", (get(b"/ready", b"x: \x1b[2J\r\n"),), (200,)),
    Case("a CR in a value", (get(b"/ready", b"x: a\rb\r\n"),), (400,)),
    Case("a key of 30 KB", (get(b"/ready", b"Authorization: Bearer " + b"k" * 30_000 + b"\r\n"),), (200,)),
]
BODIES = [
    Case("a body of no length", (post(body=b"", path=b"/models/unload"), "end"), (400,)),
    Case("a body over the limit", (post(b"Content-Length: 9000000\r\n", body=b" " * 9_000_000),), (413,)),
    Case(
        "chunks over the limit",
        (post(CHUNKED, body=(b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 9 + b"0\r\n\r\n"),),
        (413,),
    ),
    Case(
        "70,000 chunks of a byte",
        (post(CHUNKED, body=b"1\r\n \r\n" * 70_000 + b"0\r\n\r\n", path=b"/models/load"),),
        (413,),
    ),
    Case(
        "a body that is compressed",
        (
            post(
                b"Content-Encoding: gzip\r\n", b"Content-Length: 30\r\n", body=gzip.compress(b" " * 9000)[:30]
            ),
        ),
        (415,),
    ),
    Case("chunks", (post(CHUNKED, b"Connection: close\r\n", body=CHUNKS),), (200,)),
    Case(
        "chunks with an extension",
        (post(CHUNKED, b"Connection: close\r\n", body=CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),),
        (200,),
    ),
    Case(
        "a chunk with an extension of 100 KB",
        (post(CHUNKED, body=b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n"),),
        (400,),
    ),
    Case("a chunk of no number", (post(CHUNKED, body=b"xyz\r\nhello\r\n0\r\n\r\n"),), (400,)),
    Case("a chunk of less than nothing", (post(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"),), (400,)),
    Case("a chunk of 20 digits", (post(CHUNKED, body=b"f" * 20 + b"\r\nhello"),), (408,)),
    Case("a chunk of 40 digits", (post(CHUNKED, body=b"f" * 40 + b"\r\nhello"),), (400,)),
    Case("a chunk with 0x", (post(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"),), (400,)),
    Case("a chunk longer than it says", (post(CHUNKED, body=b"2\r\nhello\r\n0\r\n\r\n"),), (400,)),
    Case("a chunk shorter than it says", (post(CHUNKED, body=b"50\r\nhello\r\n0\r\n\r\n"),), (408,)),
    Case("no last chunk", (post(CHUNKED, body=CHUNKS[:-5]),), (408,)),
    Case(
        "trailers",
        (
            post(
                CHUNKED,
                b"Connection: close\r\n",
                body=CHUNKS[:-2] + b"Content-Length: 5\r\nHost: evil\r\n\r\n",
            ),
        ),
        (200,),
    ),
    Case(
        "trailers of 200 KB",
        (post(CHUNKED, body=CHUNKS[:-2] + b"a: " + b"b" * 200_000 + b"\r\n\r\n"),),
        (400,),
    ),
]
TIMES = [
    Case("nothing", (), (408,)),
    Case("half a method", (b"GE",), (408,)),
    Case("half of the headers", (b"GET /ready HTTP/1.1\r\n" + HOST,), (408,)),
    Case("half of a body", (post(b"Content-Length: 1000\r\n"),), (408,)),
    Case("half of a second request", (GET + b"GET /rea",), (200, 408)),
    Case("headers that drip", (b"GET /ready HTTP/1.1\r\nx: ", *(0.1, b"a") * 8), (408,)),
    Case("a body that drips", (post(b"Content-Length: 1000\r\n", body=b"{"), *(0.1, b" ") * 8), (408,)),
    Case("the end at once", ("end",), ()),
    Case("the end in the headers", (b"GET /ready HTTP/1.1\r\n", "end"), ()),
    Case("the end in a body", (post(b"Content-Length: 1000\r\n"), "end"), ()),
    Case("the end after a request", (GET, "end"), (200,)),
    Case("a reset in the headers", (b"GET /ready HTTP/1.1\r\n", "reset"), ()),
    Case("a reset in a body", (post(b"Content-Length: 1000\r\n"), "reset"), ()),
    Case("a reset after a request", (post(LENGTH), "reset"), ()),
]
SEVERAL = [
    Case("three at once", (GET + GET + LAST,), (200, 200, 200)),
    Case("fifty at once", (GET * 49 + LAST,), (200,) * 50),
    Case("questions at once", (post(LENGTH) * 3 + LAST,), (200,) * 4),
    Case("one, then noise", (GET + b"\x00\x01\x02\r\n\r\n",), (200, 400)),
    Case("one by the byte", (*(bytes([b]) for b in LAST),), (200,)),
    Case(
        "a socket of another kind",
        (
            get(
                b"/v1/chat/completions",
                b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
            ).replace(b"Connection: close", b"Connection: Upgrade"),
        ),
        (405,),
    ),
    Case(
        "HTTP/2 asked for",
        (
            get(b"/ready", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n").replace(
                b"Connection: close", b"Connection: Upgrade, HTTP2-Settings"
            ),
        ),
        (200,),
    ),
    Case("to go on, and then not", (post(LENGTH, b"Expect: 100-continue\r\n", body=b""),), (100, 408)),
    Case(
        "to go on, and then so",
        (post(LENGTH, b"Expect: 100-continue\r\nConnection: close\r\n", body=b""), 0.2, BODY),
        (100, 200),
    ),
    Case("something else expected", (post(LENGTH, b"Expect: a miracle\r\nConnection: close\r\n"),), (200,)),
]
CASES = [*SMUGGLING, *LINES, *HEADERS, *BODIES, *TIMES, *SEVERAL]
