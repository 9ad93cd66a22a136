import socket

import pytest
from agent_kernel.cell import frames
from hypothesis import given
from hypothesis import strategies as st


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=20),
    st.integers(1, 64),
)
def test_frames_survive_any_cutting(sent, size):
    wire = b"".join(frames.encode(*frame) for frame in sent)
    reader = frames.Reader(1000)
    got = [frame for i in range(0, len(wire), size) for frame in reader.feed(wire[i : i + size])]
    assert got == [frames.Frame(*frame) for frame in sent]


def test_a_frame_over_the_cap_is_refused_from_its_header_alone():
    reader = frames.Reader(1000)
    with pytest.raises(frames.FrameTooLong):
        list(reader.feed(frames.HEADER.pack(1001, 1, 0)))


def test_the_guest_reads_whole_frames_and_notices_the_end():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.encode(frames.START, 0, b"x" * 100_000)[:50_000])
        ours.sendall(frames.encode(frames.START, 0, b"x" * 100_000)[50_000:] + b"\x00\x00")
        assert frames.receive_start(theirs) == (frames.Frame(frames.START, 0, b"x" * 100_000), -1)
        ours.close()
        assert frames.receive_start(theirs) == (None, -1)
