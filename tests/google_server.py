"""A server on this machine that speaks Google's protocol over HTTPS, with real faults."""

from __future__ import annotations

import datetime
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Fault = Callable[["Handler", list[str]], bool]


def to_hindi(text: str) -> str:
    """Replace each Latin letter by a Devanagari one; keep placeholders, digits and signs."""
    parts = re.split(r"(\{[^{}\s]*\})", text)
    return "".join(p if p.startswith("{") else re.sub("[a-zA-Z]", _letter, p) for p in parts)


def _letter(match: re.Match[str]) -> str:
    return chr(0x0915 + ord(match[0].lower()) - ord("a"))


class Server(ThreadingHTTPServer):
    """Attributes: `faults` are called in turn before each reply; one that returns True has replied itself."""

    daemon_threads = True
    url: str

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.faults: list[Fault] = []
        self.requests = 0
        self.served: Counter[str] = Counter()
        self.latency = 0.0
        self.most_at_once = self.at_once = 0

    def handle_error(self, *_: Any) -> None:
        """Say nothing: some tests are about clients that disconnect."""


class Handler(BaseHTTPRequestHandler):
    """GET /translate_a/single?client=gtx&sl=en&tl=hi&q=…"""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        """Translate, or fail as the fault does."""
        query = parse_qs(urlsplit(self.path).query)
        texts = query["q"][0].split("\n")
        with self.server.lock:
            self.server.requests += 1
            self.waits = True
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            faults = list(self.server.faults)
        try:
            time.sleep(self.server.latency)
            if any(fault(self, texts) for fault in faults):
                return
            self.translated(texts, [to_hindi(text) for text in texts])
        finally:
            self.leave()

    def leave(self) -> None:
        """Count the request no longer: before its reply is sent, because the client may send the next one then."""
        with self.server.lock:
            self.server.at_once -= self.waits
            self.waits = False

    def translated(self, texts: list[str], translations: list[str]) -> bool:
        """Send a well-formed reply with any translations, and return True."""
        with self.server.lock:
            self.server.served.update(texts)
        ends = ["\n"] * (len(translations) - 1) + [""]
        segments = [[new + end, old + end, None] for new, old, end in zip(translations, texts, ends, strict=False)]
        return self.reply(200, json.dumps([segments, None, "en"]))

    def reply(
        self, status: int, body: str, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> bool:
        """Send any reply, and return True."""
        self.leave()
        content = body.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)
        return True

    def reset(self) -> bool:
        """Reset the connection, and return True."""
        self.leave()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()
        self.close_connection = True
        return True


def certificate(folder: Path) -> Path:
    """Write a key and a certificate for this machine into one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "localhost.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


@contextmanager
def serving(pem: Path) -> Iterator[Server]:
    """Run a server."""
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = f"localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
