"""Listeners that misbehave: each is dealt with, and nobody else notices."""

from __future__ import annotations

import time
from typing import Any

import pytest
from listening import Bare, listen
from serving import CARD, TinyEngine, running

from omnivec.server import listener
from omnivec.server.listener import MOST_HEARD

TEXT, BINARY, PING, PONG = 1, 2, 9, 10


@pytest.fixture(scope="module")
def server():
    with running() as made:
        yield made


def only(server) -> Any:
    """The server's end of the one listener."""
    end = time.monotonic() + 30
    while not server.app.feed._listeners and time.monotonic() < end:
        time.sleep(0.01)
    (found,) = server.app.feed._listeners
    return found


def gone(server) -> bool:
    """Whether the last listener goes, after a while."""
    end = time.monotonic() + 30
    while server.app.feed._listeners and time.monotonic() < end:
        time.sleep(0.01)
    return not server.app.feed._listeners


def test_what_a_listener_says_is_passed_over(server):
    with Bare(server) as one:
        one.send(TEXT, b"hello")
        one.send(BINARY, b"\xff" * MOST_HEARD)
        one.send(TEXT, b"in ", fin=False)
        one.send(0, b"pieces")
        one.send(PING, b"there?")
        assert one.until(PONG) == b"there?"
        assert one.until(TEXT).startswith(b'{"timestamp":')


def test_a_goodbye_is_answered(server):
    with Bare(server) as one:
        one.send(8, b"\x03\xe8bye")
        assert one.ended() == (1000, b"bye")
    assert gone(server)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # no such opcode
        (b"\xf1\x80\x00\x00\x00\x00", 1002),  # bits that no extension gave a meaning
        (b"\x80\x80\x00\x00\x00\x00", 1002),  # goes on with nothing
        (b"\x09\x80\x00\x00\x00\x00", 1002),  # a ping in pieces
        (b"\x88\x81\x00\x00\x00\x00\x00", 1002),  # a goodbye of one byte
        (b"\x82\xff" + b"\x7f" * 8 + bytes(4), 1009),  # would be larger than any machine
        (b"\x82\xff" + (MOST_HEARD + 1).to_bytes(8) + bytes(4), 1009),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1002),
    ],
)
def test_nonsense_is_refused_with_its_code(server, raw, code):
    with Bare(server) as bad, listen(server) as good:
        assert good.recv(30)
        bad.socket.sendall(raw)
        assert bad.ended()[0] == code
        assert good.recv(30) != good.recv(30)
    assert gone(server)


def test_a_long_message_in_short_pieces_is_too_long(server):
    with Bare(server) as one:
        one.send(TEXT, b"x" * 2048, fin=False)
        one.send(0, b"x" * 2048, fin=False)
        one.send(0, b"x", fin=False)
        assert one.ended()[0] == 1009


def test_who_goes_without_a_word_is_forgotten(server):
    one = Bare(server)
    assert one.until(TEXT)
    one.socket.close()
    assert gone(server)
    assert server.app.feed._task is None


def test_a_silent_listener_is_asked_and_goes_if_it_does_not_answer(monkeypatch):
    monkeypatch.setattr(listener, "PING", 0.3)
    with running() as server, Bare(server) as silent, Bare(server) as polite:
        for _ in range(3):
            polite.send(PONG, polite.until(PING))
        silent.until(PING)
        with pytest.raises(ConnectionError):
            silent.rest()
        polite.send(PONG, polite.until(PING))
        assert len(server.app.feed._listeners) == 1


# ── listeners that do not read ───────────────────────────────────────────────────────────


def crowded() -> TinyEngine:
    """Enough models for frames that no socket's buffer takes many of."""
    engine = TinyEngine()
    names = (f"{CARD.name}-{number}" for number in range(3000))
    engine.cards = tuple(type(CARD)(name=name, state="loaded", device="cpu") for name in names)
    return engine


def test_who_never_reads_keeps_nobody_waiting_and_takes_no_memory():
    with running(engine=crowded()) as server, Bare(server, window=4096) as stuck:
        held = only(server)
        with listen(server) as good:
            frames = [good.recv(30) for _ in range(15)]
            assert len(set(frames)) == 15
            assert held._paused
            most = 2 * len(frames[0])
            assert held.transport.get_write_buffer_size() + len(held._next or b"") <= most
        read = [stuck.until(TEXT)]
        while read[-1] < frames[-1].encode():  # the time comes first in it
            read.append(stuck.until(TEXT))
        assert read == sorted(set(read))
        assert len(read) < 12  # what no buffer took was passed over


def test_who_reads_nothing_for_too_long_is_cut(monkeypatch):
    monkeypatch.setattr(listener, "STALL", 0.5)
    with running(engine=crowded()) as server, Bare(server, window=4096) as stuck:
        assert only(server)
        assert gone(server)
        with pytest.raises(ConnectionError):
            stuck.rest()


def test_a_stuck_listener_does_not_hold_up_the_end():
    with running(engine=crowded()) as server, Bare(server, window=4096):
        held = only(server)
        end = time.monotonic() + 30
        while not held._paused and time.monotonic() < end:
            time.sleep(0.01)
        assert held._paused
        server.server.should_exit = True
        server.thread.join(20)
        assert not server.thread.is_alive()
