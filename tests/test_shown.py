"""kernel/base/shown.py: the one JSON of the journal. What is read can be written again."""

import pytest
from agent_kernel.base.shown import dumps, loads, received


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "1e999", '{"a":[-1e400]}', '{"error":{"code":"x","message":1e999}}']
)
def test_a_number_that_json_cannot_hold_is_not_read(text):
    with pytest.raises(ValueError, match=r"JSON|kept"):
        loads(text)


def test_what_is_read_is_written_the_same():
    text = b'{"a":[1.5,1e+300,-0.0,123456789012345678901234567890,"x"]}'
    assert dumps(loads(text)) == text


def test_what_a_guest_sends_is_no_deeper_than_what_can_be_shown():
    assert received(b"[" * 100 + b"1" + b"]" * 100)
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        with pytest.raises(ValueError, match="deeper than 100"):
            received(opening * 101 + b"1" + closing * 101)
