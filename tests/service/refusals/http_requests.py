"""HTTP itself: what is no request, what two readers could understand in two ways, methods, paths, headers."""

from __future__ import annotations

from collections.abc import Iterator

from tests.service.refusals.attempt import (
    HEADERS,
    IMAGE,
    MALFORMED,
    METHOD,
    NO_MODEL,
    NO_ROUTE,
    OK,
    PARAMETER,
    TOO_LARGE,
    UNDECODABLE,
    UNSUPPORTED,
    Attempt,
    head,
    post,
)

LENGTH = f"Content-Length: {len(IMAGE)}"


def wire() -> Iterator[Attempt]:
    """Bytes that are no request, or one that is not to be trusted."""
    for name, data in {
        "no host": b"GET /livez HTTP/1.1\r\n\r\n",
        "two hosts": b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "the same host twice": b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "no HTTP": b"WHAT\r\n\r\n",
        "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a request of HTTP/2.0": b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
        "a request of HTTP/3.7": b"GET /livez HTTP/3.7\r\nHost: x\r\n\r\n",
        "an SSH client": b"SSH-2.0-OpenSSH_9.6\r\n",
        "Redis": b"*1\r\n$4\r\nPING\r\n",
        "random bytes": bytes(range(1, 250)),
        "null bytes": bytes(64),
        "no version": b"GET /livez\r\nHost: x\r\n\r\n",
        "no path": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
        "a path without its slash": b"GET livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "bytes beyond ASCII in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        "a null in the path": b"GET /li\0vez HTTP/1.1\r\nHost: x\r\n\r\n",
        "a URL without an end of its host": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        "a method in lower case": b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "an unheard-of method": b"EXFILTRATE /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "a header without a colon": b"GET /livez HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
        "a header without a name": b"GET /livez HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        "a blank in a header's name": b"GET /livez HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
        "a null in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "a bare carriage return in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        "a folded header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        "a header that begins with a blank": b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    }.items():
        yield Attempt(name, data, MALFORMED)
    for name, rest in AMBIGUOUS_LENGTHS.items():
        yield Attempt(name, b"POST /predict HTTP/1.1\r\nHost: x\r\n" + rest, MALFORMED)
    yield Attempt("headers of 5,000 bytes", head("GET /livez", "X: " + "a" * 5000), HEADERS)
    many = (f"X-{number}: y" for number in range(900))
    yield Attempt("900 headers", head("GET /livez", *many), HEADERS)
    yield Attempt("a query of 5,000 bytes", head("GET /livez?" + "q" * 5000), HEADERS)
    chunked = head("POST /predict", "Transfer-Encoding: chunked")
    yield Attempt("a chunk's extension of 600,000 bytes", chunked + b"1;" + b"x" * 600_000, HEADERS)
    yield Attempt("trailers of 600,000 bytes", chunked + b"0\r\n" + b"X: y\r\n" * 100_000, HEADERS)
    yield Attempt("a body larger than the limit", post("/predict", bytes(65_537)), TOO_LARGE)
    huge = head("POST /predict", "Content-Length: 999999999999")
    yield Attempt("a terabyte announced", huge, TOO_LARGE)
    chunks = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    yield Attempt("chunks beyond the limit", chunked + chunks * 3 + b"0\r\n\r\n", TOO_LARGE)


AMBIGUOUS_LENGTHS = {
    "both lengths": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": b"Content-Length: 0x3\r\n\r\nabc",
    "a length with a blank in it": b"Content-Length: 1 0\r\n\r\nabc",
    "a length of no digits": b"Content-Length: \r\n\r\nabc",
    "a length beyond 64 bits": b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip as the coding": b"Transfer-Encoding: gzip\r\n\r\nabc",
    "chunked, and not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n\r\n",
    "a chunk's size that is none": b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
    "a chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n",
    "chunks with bare line feeds": b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
}


def taken() -> Iterator[Attempt]:
    """Odd, but HTTP all the same."""
    yield Attempt("empty lines before the request", b"\r\n\r\n" + head("GET /livez"), OK)
    yield Attempt("two blanks in the request line", b"GET  /livez  HTTP/1.1\r\nHost: x\r\n\r\n", OK)
    yield Attempt("a whole URL", head("GET http://x/livez"), OK)
    yield Attempt("a URL of another host", head("GET http://elsewhere:1/livez"), OK)
    yield Attempt("an escaped path", head("GET /%6civez"), OK)
    yield Attempt("a fragment", head("GET /livez#here"), OK)
    yield Attempt("HTTP/1.0 without a host", b"GET /livez HTTP/1.0\r\n\r\n", OK)
    yield Attempt("a GET with a body", head("GET /livez", "Content-Length: 3") + b"abc", OK)
    yield Attempt("an offer of HTTP/2", head("GET /livez", "Connection: Upgrade", "Upgrade: h2c"), OK)
    yield Attempt(
        "an offer of WebSockets", head("GET /livez", "Connection: Upgrade", "Upgrade: websocket"), OK
    )
    offer = post("/predict", IMAGE, "Connection: Upgrade", "Upgrade: h2c")
    yield Attempt("a picture with an offer of HTTP/2", offer, OK)
    yield Attempt("an unknown expectation", post("/predict", IMAGE, "Expect: miracles"), OK)
    yield Attempt(
        "a picture that says that it is text", post("/predict", IMAGE, "Content-Type: image/x-nonsense"), OK
    )
    chunked = head("POST /predict", "Transfer-Encoding: chunked")
    pieces = b"".join(b'%X;a="b"\r\n%s\r\n' % (1, bytes([byte])) for byte in IMAGE)
    yield Attempt("a picture in chunks of a byte", chunked + pieces + b"0\r\nX: y\r\n\r\n", OK)
    yield Attempt("an id that would forge a line", head("GET /livez", "X-Request-ID: a b\tc"), OK)


def routes() -> Iterator[Attempt]:
    """Paths that there are not, and methods that they do not have."""
    for path in (
        "/nothing",
        "/predict/",
        "/predict/x",
        "//predict",
        "/./predict",
        "/PREDICT",
        "/predict%00",
        "/%00",
        "/%ff%fe",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../../pyproject.toml",
        "/static/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/static/nothing.js",
        "/static/",
        "/.git/config",
        "/.env",
        "/admin",
        "/wp-login.php",
        "/v1",
        "/v3/models/tiny/infer",
        "/v2/models/tiny/versions",
        "/v2/health",
        "/metrics/x",
        "*",
    ):
        yield Attempt(f"`GET {path}`", head(f"GET {path}"), NO_ROUTE)
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        yield Attempt(f"`{method} /predict`", head(f"{method} /predict"), METHOD)
    for line in (
        "POST /livez",
        "DELETE /readyz",
        "POST /metrics",
        "PUT /",
        "POST /openapi.json",
        "GET /v2/models/tiny/infer",
        "DELETE /v2/models/tiny",
        "GET /v2/repository/index",
    ):
        yield Attempt(f"`{line}`", head(line, "Content-Length: 0"), METHOD)


def parameters() -> Iterator[Attempt]:
    """Queries and headers of a prediction."""
    for query, stated in {
        "nonsense=1": PARAMETER,
        "MODEL=tiny": PARAMETER,
        "model=": PARAMETER,
        "model": PARAMETER,
        "model=tiny&model=tiny": PARAMETER,
        "model=nothing": NO_MODEL,
        "model=..%2F..%2Fetc": NO_MODEL,
        "model=%00": NO_MODEL,
        "model=%ff%fe": NO_MODEL,
        "model=tiny&version=2": NO_MODEL,
        "model=tiny&version=latest": NO_MODEL,
        "model=tiny&version=01": NO_MODEL,
        "model=tiny&version=-1": NO_MODEL,
        "model=tiny&version=9999999999999999999999": NO_MODEL,
        "top_k=0": PARAMETER,
        "top_k=-1": PARAMETER,
        "top_k=1001": PARAMETER,
        "top_k=1.0": PARAMETER,
        "top_k=1e1": PARAMETER,
        "top_k=%2B1": PARAMETER,
        "top_k=%C2%B2": PARAMETER,
        "top_k=" + "9" * 3000: PARAMETER,
        "top_k=1&top_k=2": PARAMETER,
        "top_k=;drop": PARAMETER,
        "%00=1": PARAMETER,
    }.items():
        shown = query if len(query) < 99 else "top_k=9…, 3,000 digits"
        yield Attempt(f"`?{shown}`", post(f"/predict?{query}", IMAGE), stated)
    for value in ("0", "-1", "1.5", "", "soon", "1e3", "+1", "3600001", "9" * 3000):
        shown = value if len(value) < 99 else "9…, 3,000 digits"
        request = post("/predict", IMAGE, f"X-Request-Timeout-Ms: {value}")
        yield Attempt(f"`X-Request-Timeout-Ms: {shown}`", request, PARAMETER)
    for coding in ("gzip", "br", "deflate", "zstd", "identity, gzip", "nonsense"):
        request = post("/predict", IMAGE, f"Content-Encoding: {coding}")
        yield Attempt(f"`Content-Encoding: {coding}`", request, UNSUPPORTED)
    for media_type in (
        "text/plain",
        "text/html",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json5",
        "multipart/mixed; boundary=b",
        "video/mp4",
        "nonsense",
        "\xff",
    ):
        request = post("/predict", IMAGE, f"Content-Type: {media_type}")
        yield Attempt(f"`Content-Type: {media_type}`", request, UNSUPPORTED)
    yield Attempt("no body", post("/predict", b""), MALFORMED)
    yield Attempt("no body and no length", head("POST /predict"), MALFORMED)
    yield Attempt("a body of one null", post("/predict", b"\0"), UNDECODABLE)
