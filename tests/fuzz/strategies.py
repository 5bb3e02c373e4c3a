"""One strategy for each kind of input: something valid, then broken. KINDS names them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.fuzz.documents import HOW_MANY, cut, form, packed, tensors, v1_json
from tests.fuzz.driver import Input
from tests.fuzz.pictures import pictures, small

Headers = Sequence[tuple[bytes, bytes]]
_NAMES = st.text(max_size=12)
_MODELS = st.sampled_from([b"seed_cnn"] * 3 + [b"efficientnet_lite0"])
_PATHS = _MODELS.map(lambda name: b"/v1/models/%s/classify" % name)
_NUMBERS = [
    "0", "1", "-1", "5", "64", "100", "101", "2048", "1e3", "1_0", "nan", "inf", "9" * 400, "",
    "0x10",
    "+1", " 1", "1.0", "true", "٣", "𐵀", "1,2", ",", "1,,2", "1,2\n", "null",
]  # fmt: skip
_TYPES = [
    b"image/png", b"application/octet-stream", b"", b"*/*;q", b"text/plain; charset=utf-7",
    b";;;=;",
    b"multipart/form-data", b"multipart/form-data; boundary=", b"application/json; charset=\xff",
    b"application/json", b'multipart/form-data; boundary="', b"a" * 5000,
]  # fmt: skip


def request(path: bytes, headers: Headers, body: bytes, method: bytes = b"POST") -> bytes:
    """A request whose framing is right."""
    told = (*headers, (b"Content-Length", b"%d" % len(body)))
    lines = b"".join(b"%s: %s\r\n" % header for header in told)
    return b"%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (method, path, lines, body)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body that should be an image."""
    plain = draw(st.just(small()) | st.binary(max_size=300) | HOW_MANY.map(bytes)
                 | st.sampled_from([b"", bytes(3_000_000), b"\xff\xd8\xff",
                 b"<svg/>"]))  # fmt: skip
    headers, body = draw(packed(plain))
    if draw(st.booleans()):
        headers.append((b"Content-Type", draw(st.sampled_from(_TYPES))))
    return request(draw(_PATHS), headers, body)


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """A broken image file, as the body itself."""
    query = draw(st.sampled_from([b"", b"?resize=native", b"?resize=limit&size=64", b"?size=300"]))
    return request(draw(_PATHS) + query, (), draw(pictures))


@st.composite
def multipart(draw: st.DrawFn) -> bytes:
    """A form with images."""
    headers, body = draw(form())
    return request(draw(_PATHS), headers, body)


@st.composite
def images_in_json(draw: st.DrawFn) -> bytes:
    """JSON with images."""
    headers, body = draw(v1_json())
    return request(draw(_PATHS), headers, body)


@st.composite
def inference(draw: st.DrawFn) -> bytes:
    """A request of the Open Inference Protocol."""
    name, channels = draw(st.sampled_from([(b"seed_cnn", 1), (b"efficientnet_lite0", 3)]))
    headers, body = draw(tensors(channels))
    return request(b"/v2/models/%s/infer" % name, headers, body)


_PARAMETERS = ["top_k", "resize", "size", "timeout_ms", "classes", "min_probability", "threshold",
               "embedding", "cam", "cam_classes", "x", ""]  # fmt: skip
_WORDS = ["fit", "limit", "native", "model", "png", "array", "true"]
_TAILS = [b"", b"", b"%", b"%zz", b"&&", b";", b"%00", b"%ff=%fe", b"&a=" + b"x" * 9000]
_ODD_PATHS = [
    b"/v1/classify", b"/v1/models", b"/v1//classify", b"/v2", b"/v2/models/seed_cnn",
    b"/v2/models/stats",
    b"/v2/models/%2e%2e/infer", b"/v1/models/%00/classify", b"/v1/models/..%2f..%2f/classify",
    b"/", b"//",
    b"/v2/models/seed_cnn/versions/%F0%90%B5%80/infer", b"*", b"/docs", b"/metrics", b"/readyz",
    b"/%ff%fe", b"/" + b"a" * 9000, b"/v1/%0aTraceback", b"http://y/v1/classify",
    b"/v1/models/seed_cnn/versions/1/classify",
]  # fmt: skip
_METHODS = [b"POST"] * 6 + [b"GET", b"PUT", b"OPTIONS", b"TRACE", b"X" * 3000, b"!#$%&'*+"]


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    """Paths, query strings, methods."""
    value = st.sampled_from(_WORDS + _NUMBERS) | _NAMES
    pairs = draw(st.lists(st.tuples(st.sampled_from(_PARAMETERS), value), max_size=5))
    query = b"&".join(f"{n}={v}".encode() for n, v in pairs) + draw(st.sampled_from(_TAILS))
    sent = b"".join(b"%%%02X" % c if c <= 32 or c > 126 else bytes([c]) for c in query)
    path = draw(_PATHS | st.sampled_from(_ODD_PATHS))
    return request(path + b"?" + sent, (), small(), draw(st.sampled_from(_METHODS)))


_HEADERS = [
    b"X-Request-Id", b"Content-Type", b"Content-Encoding", b"Inference-Header-Content-Length",
    b"Accept-Encoding", b"Authorization", b"Cookie", b"Origin", b"X-Forwarded-For", b"Upgrade",
    b"Range", b"Accept", b"Forwarded", b"traceparent", b"If-None-Match", b"Content-MD5", b"Host",
]  # fmt: skip
_ODD_VALUES = [
    b"", b"\xff\xfe", b"x" * 9000, b"[", b"[::1", b"x:99999", b"h2c", b"websocket", b"a/v2",
    b"\t;,\t", b'"', b"00-" + b"0" * 32, b"boundary*0*%s=x" % (b"9" * 5000), b"\xc2\xb2", b"gzip",
]  # fmt: skip
_BOTH = [b"/v1/models/seed_cnn/classify", b"/v2/models/seed_cnn/infer", b"/v1/x", b"/v2/x"]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Headers that mean something here, with values that do not."""
    header = st.tuples(st.sampled_from(_HEADERS), st.sampled_from(_ODD_VALUES + _TYPES))
    told = draw(st.lists(header, min_size=1, max_size=6))
    told *= draw(st.sampled_from([1, 1, 1, 20, 300]))
    told = told[: 60_000 // max(1, max(len(value) for _, value in told))]
    return request(draw(st.sampled_from(_BOTH)), told, small())


_CHUNKED = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
_SIZES = [b"5"] * 3 + [b"5;x=y", b"05", b"-5", b"5 ", b"0x5", b"+5", b"fffffffff", b"F" * 40, b"",
                       b"5;" + b"x" * 9000]  # fmt: skip
_ENDS = [b"\r\n"] * 6 + [b"\n", b"\r", b"\r\n\r\n", b""]
_LAST = [b"0\r\n\r\n"] * 2 + [b"0\r\nX: y\r\n\r\n", b"0\r\n\r\n" * 2, b"00000\r\n\r\n", b""]
_ODD_LINES = [
    b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: +5",
    b"Host: y",
    b"Content-Length: 5, 5", b"Content-Length: \xb2", b"Content-Length : 5", b"Content-Length: -1",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Content-Length: " + b"9" * 23,
    b"Expect: 100-continue", b"Connection: Upgrade\r\nUpgrade: h2c", b"X: a\r\n b", b"X\0: y",
    b"X: \0",    b"Content-Length: 1000000000", b"X: " + b"y" * 70_000, b"",
]  # fmt: skip
_FIRST_LINES = [
    b"GET /healthz HTTP/1.1", b"HEAD /readyz HTTP/1.1", b"GET / HTTP/0.9", b"GET /healthz HTTP/1.0",
    b"GET /healthz", b"CONNECT x:1 HTTP/1.1", b"GET  / HTTP/1.1", b"PRI * HTTP/2.0",
    b"GET /\xff HTTP/1.1", b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close",
    b"\x16\x03\x01\x02\0\x01",
]  # fmt: skip


@st.composite
def _chunks(draw: st.DrawFn) -> bytes:
    sizes, ends = st.sampled_from(_SIZES), st.sampled_from(_ENDS)
    parts = st.builds(lambda size, a, b: size + a + b"hello" + b, sizes, ends, ends)
    return b"".join(draw(st.lists(parts, max_size=3))) + draw(st.sampled_from(_LAST))


@st.composite
def framing(draw: st.DrawFn) -> bytes:
    """HTTP itself: lengths, chunks, pipelines, two ideas of where a request ends."""
    good, chunks = request(draw(_PATHS), (), small()), draw(_chunks())
    odd, lines = draw(st.sampled_from(_ODD_LINES)) + b"\r\n", st.sampled_from(_ODD_LINES)
    first = [draw(st.sampled_from(_FIRST_LINES)), b"Host: x", *draw(st.lists(lines, max_size=2))]
    plain, doubtful = b"\r\n".join([*first, b"", b""]), _CHUNKED + odd + b"\r\n" + chunks
    made = [
        _CHUNKED + b"\r\n" + chunks, doubtful, doubtful, plain, plain, good + plain, plain + good,
        good * 3, good[: len(good) // 2], good.replace(b"\r\n", b"\n"), good + chunks,
        b"\r\n" * 3 + good, good.replace(b"Content-Length: ", odd + b"Content-Length: "),
        good + doubtful, b"\0" * 100,
        _CHUNKED + b"\r\n" + b"1\r\nx\r\n" * 2000 + chunks, good.replace(b"1.1", b"1.0", 1),
    ]  # fmt: skip
    return draw(st.sampled_from(made) | cut(good) | cut(doubtful))


_MADE = {
    "body": bodies(), "image": images(), "multipart": multipart(), "json": images_in_json(),
    "oip": inference(), "query": queries(), "header": headers(), "framing": framing(),
}  # fmt: skip
KINDS = {kind: st.builds(Input, st.just(kind), made) for kind, made in _MADE.items()}
