"""The supervisor's relay of connections and its end of the pipes, against real sockets and an engine played by the test."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from ade_runner import frames, tunnel
from ade_runner.engine import Engine
from ade_runner.frames import ProtocolError
from ade_runner.tunnel import Tunnel

EXHAUSTED = "HTTP/1.1 429 enough\r\n\r\n"


class Side:
    """A tunnel in a poll loop, and what it has told the engine."""

    def __init__(self, connections: int, in_all: int) -> None:
        self.sent: list[tuple[int, int, bytes]] = []
        self.poll = select.poll()
        self.tunnel = Tunnel(self._keep, {"connections": connections, "in_all": in_all, "exhausted": EXHAUSTED})
        self.tunnel.open()
        self.tunnel.watch(self.poll)

    def _keep(self, data: bytes | memoryview) -> None:
        self.sent += [(frame.kind, frame.stream, frame.payload) for frame in frames.Decoder().feed(bytes(data))]

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            for fd, events in self.poll.poll(20):
                self.tunnel.ready(fd, events)

    def take(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.tunnel.take(kind, number, memoryview(payload))

    def kinds(self, number: int) -> list[int]:
        return [kind for kind, stream, _ in self.sent if stream == number]

    def data(self, number: int) -> bytes:
        return b"".join(payload for kind, stream, payload in self.sent if (kind, stream) == (frames.DATA, number))


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Side]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(tunnel, "PORT", port)
    made: list[Side] = []
    yield made
    for side in made:
        side.tunnel.close()


def side_of(sides: list[Side], connections: int = 4, in_all: int = 100) -> Side:
    sides.append(Side(connections, in_all))
    return sides[-1]


def client() -> socket.socket:
    end = socket.create_connection(("127.0.0.1", tunnel.PORT), 2)
    end.settimeout(2)
    return end


def test_bytes_pass_both_ways_and_both_halves_close(sides: list[Side]) -> None:
    side = side_of(sides)
    with client() as end:
        end.sendall(b"hello")
        side.turn()
        assert side.data(16) == b"hello"
        side.take(frames.DATA, 16, b"and back")
        assert end.recv(100) == b"and back"
        side.take(frames.END, 16)
        assert end.recv(100) == b""
        end.sendall(b"still")
        side.turn()
        assert side.data(16) == b"hellostill"
        end.shutdown(socket.SHUT_WR)
        side.turn()
    assert side.kinds(16) == [frames.OPEN, frames.DATA, frames.DATA, frames.END, frames.RESET]
    side.take(frames.CREDIT, 16, struct.pack(">I", 10))  # was under way
    side.take(frames.RESET, 16)
    with pytest.raises(ProtocolError):
        side.take(frames.DATA, 16, b"x")


def test_a_client_sends_no_more_than_the_engine_gave_credit_for(sides: list[Side]) -> None:
    side = side_of(sides)
    with client() as end:
        end.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                end.sendall(bytes(65_536))
                side.turn(1)
        side.turn(20)
        assert len(side.data(16)) == frames.UP_WINDOW
        side.take(frames.CREDIT, 16, struct.pack(">I", 1000))
        side.turn(20)
        assert len(side.data(16)) == frames.UP_WINDOW + 1000


def test_a_client_that_does_not_read_costs_a_window_and_no_turn(sides: list[Side]) -> None:
    side = side_of(sides)
    with client() as end, client() as other:
        side.turn()
        sent = 0
        while not side.tunnel._by_number[16].outbox:  # until the kernel's buffers are full
            side.take(frames.DATA, 16, bytes(65_536))
            sent += 65_536
        credited = sum(struct.unpack(">I", payload)[0] for kind, _, payload in side.sent if kind == frames.CREDIT)
        left = frames.DOWN_WINDOW - (sent - credited)
        while left > 0:
            side.take(frames.DATA, 16, bytes(min(left, 65_536)))
            left -= 65_536
        assert len(side.tunnel._by_number[16].outbox) <= frames.DOWN_WINDOW
        other.sendall(b"me too")
        side.turn()
        assert side.data(17) == b"me too"
        assert side.poll.poll(0) == [], "nothing to do is nothing to do"
        with pytest.raises(ProtocolError):
            for _ in range(64):
                side.take(frames.DATA, 16, bytes(65_536))
        end.close()


def test_a_client_that_goes_away_is_told_to_the_engine(sides: list[Side]) -> None:
    side = side_of(sides)
    end = client()
    side.turn()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
    side.turn()
    assert side.kinds(16) == [frames.OPEN, frames.RESET]
    side.take(frames.DATA, 16, b"under way")
    side.take(frames.RESET, 16)
    assert side.tunnel._open() == 0


def test_clients_beyond_what_there_may_be_at_once_wait(sides: list[Side]) -> None:
    side = side_of(sides, connections=2)
    ends = [client() for _ in range(3)]
    side.turn()
    assert [stream for kind, stream, _ in side.sent if kind == frames.OPEN] == [16, 17]
    ends[0].close()
    side.turn()
    side.take(frames.RESET, 16)
    side.turn()
    assert [stream for kind, stream, _ in side.sent if kind == frames.OPEN] == [16, 17, 18]
    for end in ends:
        end.close()


def test_clients_beyond_what_there_may_be_in_all_are_told(sides: list[Side]) -> None:
    side = side_of(sides, in_all=1)
    with client() as end, client() as late:
        side.turn()
        late.sendall(b"CONNECT a.b:443 HTTP/1.1\r\n\r\n")
        side.turn()
        assert late.recv(1000) == EXHAUSTED.encode()
        assert late.recv(1000) == b""
        late.close()
        side.turn()
        assert {stream for _, stream, _ in side.sent} == {16}
        assert len(side.tunnel._by_fd) == 1
        end.close()


def test_closing_ends_every_connection_and_numbers_go_on(sides: list[Side]) -> None:
    side = side_of(sides)
    with client() as end:
        side.turn()
        side.tunnel.close()
        assert end.recv(10) == b""
    assert side.kinds(16) == [frames.OPEN, frames.RESET]
    side.tunnel.open()
    side.poll = select.poll()
    side.tunnel.watch(side.poll)
    side.take(frames.END, 16)  # was under way
    with client() as end:
        side.turn()
        assert side.sent[-1] == (frames.OPEN, 17, b"")
        end.close()


def test_frames_are_read_whole_however_they_arrive() -> None:
    read, write = socket.socketpair()
    with read, write:
        reader = frames.Reader(read.fileno())
        whole = b"".join(frames.encode(frames.DATA, bytes([number]) * (number * 251), 16 + number) for number in range(250))
        found: list[tuple[int, bytes]] = []
        for start in range(0, len(whole), 7001):
            write.sendall(whole[start : start + 7001])
            reader.fill()
            found += [(stream, bytes(payload)) for _, stream, payload in reader.frames()]
        assert found == [(16 + number, bytes([number]) * (number * 251)) for number in range(250)]
        write.sendall(struct.pack(">BBHI", 2, 0, 16, frames.MAX_PAYLOAD + 1))
        reader.fill()
        with pytest.raises(ProtocolError):
            list(reader.frames())


def test_much_that_comes_at_once_is_read_with_few_calls() -> None:
    read, write = socket.socketpair()
    with read, write:
        reader = frames.Reader(read.fileno())
        whole = b"".join(frames.encode(frames.DATA, bytes([number]) * frames.MAX_PAYLOAD, 16) for number in range(6))
        sender = threading.Thread(target=write.sendall, args=(whole,))
        sender.start()
        found: list[bytes] = []
        while len(found) < 6:
            reader.fill()
            found += [bytes(payload) for _, _, payload in reader.frames()]
        sender.join()
        assert found == [bytes([number]) * frames.MAX_PAYLOAD for number in range(6)]
        assert len(reader._buffer) == 8 * (frames.HEADER_SIZE + frames.MAX_PAYLOAD)


def test_what_can_wait_goes_out_with_what_comes_next_and_in_order() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    engine = Engine(0, write)
    try:
        assert engine.due() is None
        engine.put(b"first")
        engine.put(b"second")
        due = engine.due()
        assert due is not None and 0 < due <= 0.005
        with pytest.raises(BlockingIOError):
            os.read(read, 100)
        engine.send(b"at once")
        assert os.read(read, 100) == b"firstsecondat once" and engine.due() is None
        engine.put(b"alone")
        time.sleep(0.006)
        assert engine.due() == 0.0
        engine.flush()
        assert os.read(read, 100) == b"alone" and engine.due() is None
        engine.put(bytes(40_000))
        assert len(os.read(read, 100_000)) == 40_000 and engine.due() is None
    finally:
        os.close(read)
        os.close(write)
