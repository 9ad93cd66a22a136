"""kernel/base/shown.py: the one JSON of the journal. What is read can be written again."""

import pytest
from agent_kernel.base.shown import dumps, loads


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "1e999", '{"a":[-1e400]}', '{"error":{"code":"x","message":1e999}}']
)
def test_a_number_that_json_cannot_hold_is_not_read(text):
    with pytest.raises(ValueError, match=r"JSON|kept"):
        loads(text)


def test_what_is_read_is_written_the_same():
    text = b'{"a":[1.5,1e+300,-0.0,123456789012345678901234567890,"x"]}'
    assert dumps(loads(text)) == text
