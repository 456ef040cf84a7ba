"""The wire codec: what is sent arrives bit for bit, and nothing else is ever taken for a vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nodes.runtime.arrays import F32
from nodes.runtime.errors import WireError
from nodes.runtime.wire import CHUNK_BYTES, Receiver, announce, chunks
from nodes.v1 import participants_pb2 as pb

FULL = CHUNK_BYTES // 4
SIZES = [1, FULL - 1, FULL, FULL + 1, 2 * FULL - 1, 2 * FULL, 2 * FULL + 1, 3 * FULL + 17]


def travel(vector_D: F32) -> F32:
    """Send and receive, with every message serialised as gRPC would."""
    target_D = np.full(vector_D.shape, 77, np.float32)
    header = pb.Vector.FromString(announce(vector_D).SerializeToString())
    receiver = Receiver(target_D, header, "test")
    for chunk in chunks(vector_D):
        assert not receiver.complete
        assert 0 < len(chunk) <= CHUNK_BYTES
        receiver.feed(chunk)
    receiver.check()
    assert receiver.complete
    return target_D


@given(hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)))
def test_small_vectors_travel_inside_bit_for_bit(vector_D: F32) -> None:
    assert list(chunks(vector_D)) == []
    assert travel(vector_D).tobytes() == vector_D.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_the_chunk_size(size: int) -> None:
    vector_D = np.random.default_rng(size).normal(size=size).astype(np.float32)
    assert np.array_equal(travel(vector_D), vector_D)
    assert (announce(vector_D).data == b"") == (size > FULL)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_any_cut_into_chunks_gives_the_same_vector(cuts: list[int]) -> None:
    vector_D = np.arange(100, dtype=np.float32)
    content, target_D = vector_D.tobytes(), np.zeros(100, np.float32)
    receiver = Receiver(target_D, pb.Vector(dtype="<f4", length=100), "test")
    start = 0
    for cut in [*cuts, len(content)]:
        receiver.feed(content[start : start + cut])
        start += cut
    assert receiver.complete
    assert np.array_equal(target_D, vector_D)


def test_views_and_read_only_vectors_are_sent_as_they_read() -> None:
    matrix_ND = np.arange(4 * (FULL + 3), dtype=np.float32).reshape(-1, 4)
    strided_D = matrix_ND[:, 1]
    strided_D.setflags(write=False)
    assert np.array_equal(travel(strided_D), strided_D)
    assert np.array_equal(travel(strided_D[:5]), strided_D[:5])


def test_a_row_of_a_matrix_is_filled_and_its_neighbours_stay() -> None:
    matrix_ND = np.zeros((3, 4), np.float32)
    Receiver(matrix_ND[1], announce(np.float32([1, 2, 3, 4])), "test").check()
    assert matrix_ND.tolist() == [[0] * 4, [1, 2, 3, 4], [0] * 4]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (pb.Vector(dtype=">f4", length=2, data=b"12345678"), "dtype '>f4', expected '<f4'"),
        (pb.Vector(length=2, data=b"12345678"), "dtype '', expected '<f4'"),
        (pb.Vector(dtype="<f4", length=3, data=b"12345678"), "3 parameters, expected 2"),
        (pb.Vector(dtype="<f4", length=0), "0 parameters, expected 2"),
        (pb.Vector(dtype="<f4", length=1 << 63), f"{1 << 63} parameters, expected 2"),
        (pb.Vector(dtype="<f4", length=2, data=b"1234567"), "7 bytes, expected 8"),
        (pb.Vector(dtype="<f4", length=2, data=b"123456789"), "at least 9 bytes, expected 8"),
    ],
)
def test_a_wrong_announcement_is_refused_by_name_and_writes_nothing(header: pb.Vector, text: str) -> None:
    target_D = np.zeros(2, np.float32)
    with pytest.raises(WireError, match=f"^actor-3: {text}$"):
        Receiver(target_D, header, "actor-3")
    if len(header.data) != 7:
        assert not target_D.any()


def test_too_many_bytes_are_refused_before_they_are_written() -> None:
    target_D = np.zeros(3, np.float32)
    receiver = Receiver(target_D[:2], pb.Vector(dtype="<f4", length=2), "actor-3")
    receiver.feed(b"\1" * 4)
    with pytest.raises(WireError, match="actor-3: at least 9 bytes, expected 8"):
        receiver.feed(b"\1" * 5)
    assert target_D[1:].tolist() == [0, 0]


def test_a_stream_that_ends_early_is_noticed() -> None:
    receiver = Receiver(np.zeros(2, np.float32), pb.Vector(dtype="<f4", length=2), "actor-3")
    receiver.feed(b"\1" * 5)
    assert not receiver.complete
    with pytest.raises(WireError, match="actor-3: 5 bytes, expected 8"):
        receiver.check()
