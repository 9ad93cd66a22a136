import re

import pytest
from agent_kernel.base import errors
from agent_kernel.base.ports import Ports, rfc3339


def test_an_error_crosses_the_wire_and_comes_back_equal():
    sent = errors.NotFound("run.unknown", "There is no run run_x. List runs with run_get().")
    back = errors.KernelError.from_wire(sent.to_wire())
    assert back.to_wire() == sent.to_wire()
    assert isinstance(back, errors.CallerError)


@pytest.mark.parametrize("kind", [errors.ArgumentError, errors.GuestError, errors.HostError, errors.KernelFault])
def test_the_text_is_complete_by_itself(kind):
    assert str(kind("area.what", "What happened. What to do.")) == "area.what: What happened. What to do."


def test_only_an_overloaded_kernel_invites_a_retry_by_itself():
    assert errors.Overloaded("full", retry_after_s=1.0).to_wire()["retryable"] is True
    assert errors.Denied("egress.denied", "no").to_wire()["retryable"] is False


def test_ids_are_short_prefixed_and_never_repeat():
    ports = Ports.real()
    ids = {ports.new_id("run") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"run_[a-z2-7]{12}", one) for one in ids)


def test_times_leave_the_kernel_as_rfc3339_utc():
    assert rfc3339(0.0005) == "1970-01-01T00:00:00.000Z"
