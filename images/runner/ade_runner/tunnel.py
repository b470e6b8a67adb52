"""Connections of the child's processes, relayed to the engine: a listener on loopback, one stream each, credit both ways.

The engine is the proxy that clients find behind the listener; nothing here looks into what they say. Everything runs in the
supervisor's one poll loop: sockets never block, and what a slow client has not taken yet is bounded by the credit that the
engine was given.
"""

from __future__ import annotations

import fcntl
import select
import struct
from collections.abc import Callable

# What ``socket`` itself is made of; that module makes enums of all its numbers, which takes as long as a small job's passes.
import _socket

from . import frames
from .frames import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST, PORT = "127.0.0.1", 3128
_BACKLOG = 128
_ACCEPTS = 16
"""Connections that are taken in one turn of the loop."""
_CREDIT_STEP = frames.DOWN_WINDOW // 4
_IN, _OUT = select.POLLIN, select.POLLOUT
_PIPE_BYTES = 1_048_576
_CREDIT = struct.Struct(">I")


class _Connection:
    """A client's socket, and what both sides have said so far."""

    __slots__ = ("number", "socket", "fd", "outbox", "credit", "owed", "client_ended", "engine_ended", "interest")

    def __init__(self, number: int | None, client: _socket.socket) -> None:
        self.number = number
        """Its stream; none for a client that is only told why it gets no connection."""
        self.socket = client
        self.fd = client.fileno()
        self.outbox = bytearray()
        self.credit = frames.UP_WINDOW
        self.owed = 0
        self.client_ended = False
        self.engine_ended = False
        self.interest = 0


class Tunnel:
    """All connections of one job. ``send`` takes frames for the engine; ``terms`` is the job's ``egress``."""

    def __init__(self, send: Callable[[bytes | memoryview], None], terms: dict[str, Any]) -> None:
        self._send = send
        self._at_once = int(terms["connections"])
        self._last = frames.FIRST_CONNECTION + int(terms["in_all"])
        self._exhausted = str(terms["exhausted"]).encode()
        self._next = frames.FIRST_CONNECTION
        self._poll: select.poll | None = None
        self._listener: _socket.socket | None = None
        self._listens = False
        self._by_fd: dict[int, _Connection] = {}
        self._by_number: dict[int, _Connection] = {}
        self._closing: set[int] = set()
        """Streams that are closed here, and of which the engine may not know it yet."""
        self._frame = bytearray()
        """What is read of clients, in room for one frame, which most jobs never need."""

    def open(self) -> None:
        """Listens, before the child is forked: it finds the port taken and served."""
        self._listener = listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind((HOST, PORT))
        listener.listen(_BACKLOG)
        listener.setblocking(False)

    def watch(self, poll: select.poll) -> None:
        """Has the loop of ``poll`` look at the listener and the connections."""
        self._poll = poll
        self._watch_listener()

    def close(self) -> None:
        """Closes everything: the child has ended."""
        for connection in list(self._by_fd.values()):
            self._close(connection)
        if self._listener is not None:
            self._listener.close()
        self._listener, self._poll, self._listens = None, None, False

    def ready(self, fd: int, events: int) -> None:
        """Takes one event of the loop about one of its own file descriptors."""
        if self._listener is not None and fd == self._listener.fileno():
            self._accept()
            return
        connection = self._by_fd.get(fd)
        if connection is None:
            return
        if events & _OUT or not connection.interest & _IN:
            self._flush(connection)
        if events & ~_OUT and connection.interest & _IN and fd in self._by_fd:
            self._receive(connection)

    def take(self, kind: int, number: int, payload: memoryview) -> None:
        """Takes one frame of the engine."""
        connection = self._by_number.get(number)
        if connection is None:
            if number not in self._closing:
                raise ProtocolError(f"frame 0x{kind:02x} of connection {number}, which is not open")
            if kind == frames.RESET:
                self._closing.discard(number)
                self._watch_listener()
        elif kind == frames.DATA:
            self._deliver(connection, payload)
        elif kind == frames.CREDIT:
            connection.credit += _CREDIT.unpack(payload)[0]
            self._update(connection)
        elif kind == frames.END:
            connection.engine_ended = True
            if not connection.outbox:
                self._finish_writing(connection)
        elif kind == frames.RESET:
            self._close(connection)
            self._closing.discard(number)
            self._watch_listener()
        else:
            raise ProtocolError(f"frame 0x{kind:02x} of a connection")

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTS):
            if self._open() >= self._at_once:
                break
            try:
                fd, _ = self._listener._accept()
            except OSError:  # none waits, or the one that did has gone
                break
            client = _socket.socket(fileno=fd)
            client.setblocking(False)
            client.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            if self._next < self._last:
                connection = _Connection(self._next, client)
                self._next += 1
                self._by_number[connection.number or 0] = connection
                self._say(frames.OPEN, connection)
            else:
                connection = _Connection(None, client)
                connection.outbox += self._exhausted
                connection.engine_ended = True
            self._by_fd[connection.fd] = connection
            self._update(connection)
        self._watch_listener()

    def _open(self) -> int:
        return len(self._by_fd) + len(self._closing)

    def _watch_listener(self) -> None:
        """Clients beyond what there may be at once wait, until one of the others is done."""
        if self._listener is None or self._poll is None:
            return
        wanted = self._open() < self._at_once
        if wanted != self._listens:
            self._listens = wanted
            if wanted:
                self._poll.register(self._listener, _IN)
            else:
                self._poll.unregister(self._listener)

    def _receive(self, connection: _Connection) -> None:
        try:
            if not self._frame:
                self._frame = bytearray(frames.HEADER_SIZE + frames.MAX_PAYLOAD)
            room = memoryview(self._frame)[frames.HEADER_SIZE :]
            size = connection.socket.recv_into(room, min(connection.credit, frames.MAX_PAYLOAD))
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        if size == 0:
            connection.client_ended = True
            self._say(frames.END, connection)
            if connection.engine_ended and not connection.outbox:
                self._close(connection)
                return
        elif connection.number is not None:
            connection.credit -= size
            frames.pack_header(self._frame, frames.DATA, connection.number, size)
            self._send(memoryview(self._frame)[: frames.HEADER_SIZE + size])
        self._update(connection)

    def _deliver(self, connection: _Connection, payload: memoryview) -> None:
        if not connection.outbox:
            sent = self._write(connection, payload)
            if sent < 0 or sent == len(payload):
                return
            payload = payload[sent:]
        if len(connection.outbox) + len(payload) > frames.DOWN_WINDOW:
            raise ProtocolError(f"more bytes of connection {connection.number} than it had credit for")
        connection.outbox += payload
        self._update(connection)

    def _flush(self, connection: _Connection) -> None:
        if connection.outbox:
            with memoryview(connection.outbox) as waiting:
                sent = self._write(connection, waiting)
            if sent < 0:
                return
            del connection.outbox[:sent]
        if not connection.outbox and connection.engine_ended:
            self._finish_writing(connection)
        else:
            self._update(connection)

    def _write(self, connection: _Connection, data: memoryview) -> int:
        """Writes what the client takes, and gives the engine credit for it; -1 when the client has gone."""
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._close(connection)
            return -1
        connection.owed += sent
        if connection.owed >= _CREDIT_STEP and not connection.engine_ended:
            self._say(frames.CREDIT, connection, _CREDIT.pack(connection.owed))
            connection.owed = 0
        return sent

    def _finish_writing(self, connection: _Connection) -> None:
        """The client has everything that the engine had for it."""
        if connection.client_ended:
            self._close(connection)
            return
        try:
            connection.socket.shutdown(_socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._update(connection)

    def _close(self, connection: _Connection) -> None:
        self._want(connection, 0)
        del self._by_fd[connection.fd]
        connection.socket.close()
        if connection.number is not None:
            del self._by_number[connection.number]
            self._closing.add(connection.number)
            self._say(frames.RESET, connection)
        self._watch_listener()

    def _say(self, kind: int, connection: _Connection, payload: bytes = b"") -> None:
        if connection.number is not None:
            self._send(frames.encode(kind, payload, connection.number))

    def _update(self, connection: _Connection) -> None:
        readable = not connection.client_ended and connection.credit > 0
        self._want(connection, (_IN if readable else 0) | (_OUT if connection.outbox else 0))

    def _want(self, connection: _Connection, interest: int) -> None:
        """What is wanted of a socket. With nothing it is not even looked at: a hang-up would be told again and again."""
        if interest == connection.interest or self._poll is None:
            return
        if interest == 0:
            self._poll.unregister(connection.fd)
        else:
            self._poll.register(connection.fd, interest)
        connection.interest = interest


def widen(fd: int) -> None:
    """Gives a pipe room for many frames, where the kernel lets it: one read then takes what has come in the meantime."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass


def environment(ca_bundle: str | None) -> dict[str, str]:
    """What makes clients in the child use the tunnel, and trust whom the admin trusts."""
    url, none = f"http://{HOST}:{PORT}", "localhost,127.0.0.1,::1"
    found = {name: url for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    found |= {"NO_PROXY": none, "no_proxy": none}
    if ca_bundle is not None:
        found |= {name: ca_bundle for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")}
    return found
