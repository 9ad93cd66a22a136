"""kernel/base/payloads.py: a guest may send anything; what passes has the form that is promised."""

import json

import pytest
from agent_kernel.base.payloads import Malformed, ending, note


@pytest.mark.parametrize("done", [1e999, -1e300, 10**400, True, "1", [1]])
def test_a_progress_that_no_client_could_read_is_malformed(done):
    with pytest.raises(Malformed):
        note(json.dumps({"progress": [done, None, ""]}).encode())


def test_a_progress_keeps_its_numbers():
    assert note(b'{"progress":[3,4.5,"half"]}') == {"progress": {"done": 3, "total": 4.5, "message": "half"}}


def test_an_end_with_an_infinite_number_is_malformed():
    with pytest.raises(Malformed):
        ending(b'{"error":{"code":"x","message":1e999}}')
