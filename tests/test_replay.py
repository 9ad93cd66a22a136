"""The replay machine: what a guest may say when, and what is executed, held back, or called a divergence."""

import itertools
import json
import math
import struct

import pytest
from agent_kernel.base import replay as r
from agent_kernel.cell import frames
from hypothesis import given, settings
from hypothesis import strategies as st


def call(n, method="tool", arguments=None, *, effect=0, path="main/x"):
    label = path.encode()
    body = frames.CALL_HEAD.pack(frames.METHODS.index(method), effect, len(label)) + label
    return frames.Frame(frames.CALL, n, body + json.dumps(arguments or {}).encode())


def idle(consumed, timer=math.nan):
    return frames.Frame(frames.IDLE, consumed, frames.IDLE_BODY.pack(timer))


def drop(n):
    return frames.Frame(frames.DROP, n, b"")


def expected(method="tool", arguments=None, *, settled=True):
    return r.Expected(method, "at_least_once", r.digest_of(json.dumps(arguments or {}).encode()), settled)


def machine(answers=(), known=None, *, calls_max=100, open_max=10):
    known = known if known is not None else {n: expected() for n in answers if n >= 0}
    return r.Replay(
        expected=known, answers=list(answers), calls_max=calls_max, calls_open_max=open_max, bytes_open_max=1000
    )


def names(actions):
    return [type(action).__name__ for action in actions]


def made(n):
    return r.Made(n, "tool", "at_least_once", "main/x", b"{}", r.digest_of(b"{}"))


def test_a_first_life_executes_its_calls_at_once():
    m = machine()
    assert names(m.take(call(0))) == ["Execute"]
    assert m.take(call(1))[0].call.method == "tool"


def test_a_recorded_call_is_not_executed_and_one_without_a_record_waits_for_the_live_point():
    m = machine([1])  # call 0 was dropped or in flight in the life before: no record
    assert m.take(call(0)) == []
    assert m.take(call(1)) == []
    assert names(m.take(idle(0))) == ["Idle"]
    m.sending(0, 1)
    actions = m.take(idle(1))
    assert names(actions) == ["Execute", "Idle"]
    assert actions[0].call.n == 0


def test_a_held_call_that_is_dropped_before_the_live_point_is_never_executed():
    m = machine([1])
    m.take(call(0))
    m.take(call(1))
    m.sending(0, 1)
    assert m.take(drop(0)) == []
    assert names(m.take(idle(1))) == ["Idle"]


def test_a_dropped_call_that_is_executed_is_cancelled():
    m = machine()
    m.take(call(0))
    assert m.take(drop(0)) == [r.Cancel(0)]
    assert names(m.take(drop(0))) == ["Broken"]


def test_an_answer_that_comes_during_replay_settles_the_held_call():
    """A tool that was called in the life before and went on in the kernel while its guest was parked."""
    m = machine([NO := -1], {0: expected(settled=False)})
    m.settled(made(0))
    assert m.take(call(0)) == []
    m.sending(0, NO)
    m.sending(1, 0)
    assert names(m.take(idle(2))) == ["Idle"]


@pytest.mark.parametrize(
    "found",
    [call(0, "tool", {"v": 2}), call(0, "skill", {"v": 1}), call(0, "tool", {"v": 1}, effect=1)],
    ids=["argument", "method", "effect"],
)
def test_a_call_that_differs_from_its_record_is_a_divergence(found):
    m = machine([0], {0: expected(arguments={"v": 1})})
    assert names(m.take(found)) == ["Diverged"]


def test_a_label_that_differs_is_no_divergence():
    assert machine([0]).take(call(0, path="renamed/f#0")) == []


def test_a_program_that_waits_without_its_recorded_call_has_diverged():
    m = machine([0])
    assert m.take(idle(0)) == [r.Diverged(0, None)]


def test_a_program_that_ends_without_its_recorded_calls_has_diverged():
    m = machine([0, 1])
    m.take(call(0))
    m.sending(0, 0)
    assert m.take(frames.Frame(frames.END, 1, b"{}")) == [r.Diverged(1, None)]


def test_a_program_may_end_with_answers_unconsumed_whose_calls_it_made():
    """Killed after its END and before the end was recorded, it ends in the same way again."""
    m = machine([0, 1])
    m.take(call(0))
    m.take(call(1))
    m.sending(0, 0)
    m.sending(1, 1)
    assert names(m.take(frames.Frame(frames.END, 1, b"{}"))) == ["End"]


@pytest.mark.parametrize(
    "frame",
    [
        call(1),
        drop(0),
        idle(1),
        idle(0, -1.0),
        idle(0, math.inf),
        frames.Frame(frames.IDLE, 0, b""),
        frames.Frame(frames.RESULT, 0, b"{}"),
        frames.Frame(frames.END, 1, b"{}"),
        frames.Frame(frames.CALL, 0, b"\x00"),
        frames.Frame(frames.CALL, 0, struct.pack("<BBH", 200, 0, 0)),
        frames.Frame(frames.CALL, 0, struct.pack("<BBH", 0, 9, 0)),
        frames.Frame(frames.CALL, 0, struct.pack("<BBH", 0, 0, 50)),
        frames.Frame(frames.START, 0, b""),
        frames.Frame(frames.DELIVER, 0, b""),
        frames.Frame(99, 0, b""),
    ],
)
def test_what_has_no_place_in_the_protocol_breaks_it(frame):
    assert names(machine().take(frame)) == ["Broken"]


def test_nothing_may_follow_the_end():
    m = machine()
    m.take(frames.Frame(frames.END, 0, b"{}"))
    assert names(m.take(idle(0))) == ["Broken"]


def test_consumed_deliveries_never_fall():
    m = machine([-1, -1])
    m.sending(0, -1)
    m.sending(1, -1)
    m.take(idle(2))
    assert names(m.take(idle(1))) == ["Broken"]


def test_calls_have_a_number_limit_and_an_open_limit():
    m = machine(calls_max=2)
    m.take(call(0))
    m.take(call(1))
    assert names(m.take(call(2))) == ["Broken"]
    m = machine(open_max=1)
    m.take(call(0))
    assert names(m.take(call(1))) == ["Broken"]


def test_an_answered_call_is_not_open_any_more():
    m = machine(open_max=1)
    m.take(call(0))
    m.settled(made(0))
    assert names(m.take(call(1))) == ["Execute"]


def test_an_outcome_counts_once_and_only_for_a_step_that_was_told_to_run():
    m = machine()
    m.take(call(0, "step"))
    result = frames.Frame(frames.RESULT, 0, b'{"ok":1}')
    m.running(0)
    assert m.take(result) == [r.Outcome(0, b'{"ok":1}')]
    assert names(m.take(result)) == ["Broken"]


def test_the_outcome_of_a_dropped_step_is_ignored():
    m = machine()
    m.take(call(0, "step"))
    m.running(0)
    m.take(drop(0))
    assert m.take(frames.Frame(frames.RESULT, 0, b"{}")) == []


def test_every_transition_leads_where_the_table_says():
    """The table of the docstring and the table of the code are one: each line of the first is a key of the second."""
    lines = [
        line.strip()
        for line in (r.__doc__ or "").splitlines()
        if "--" in line and not line.strip().startswith("(none)")
    ]
    written = set()
    for line in lines:
        state, rest = line.split(None, 1)
        parts = rest.replace("-->", "->").replace("--", "").replace("->", " ").split()
        written |= {(state.lower(), event, after.lower()) for event, after in zip(parts[::2], parts[1::2], strict=True)}
    coded = {(before.value, event, after.value) for (before, event), after in r.TRANSITIONS.items()}
    assert written == coded


def test_the_first_difference_is_named():
    old, new = b'{"a":1,"b":{"c":[1,2]}}', b'{"a":1,"b":{"c":[1,3]}}'
    assert r.difference(old, new) == 'argument "b.c[1]": 2, now 3'
    assert r.difference(b'{"a":1}', b'{"a":1,"v":2}') == 'argument "v" is new, 2'
    assert r.difference(b'{"a":1}', b"{}") == 'argument "a" is gone, was 1'
    assert r.difference(b'{"a":1}', b'{"a":true}') == 'argument "a": 1, now true'
    assert "too long" in r.difference(None, b"{}")


def test_the_report_of_a_divergence_shows_both_calls():
    text = r.divergence_text(
        diverged=r.Diverged(5, r.Made(5, "tool", "at_least_once", "main/p", b'{"v":2}', b"")),
        recorded=("tool", "main/p#0", b'{"v":1}'),
        answered=4,
        runtime_changed=False,
    )
    assert "call 5 (main/p#0), after 4 recorded answers" in text
    assert '{"v":1}' in text
    assert '{"v":2}' in text
    assert 'argument "v": 1, now 2' in text


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_frames_at_all_give_actions_and_never_an_exception(data):
    """A hostile guest ends as Broken; it cannot make the machine raise."""
    m = machine([0, -1, 1])
    types = st.integers(0, 12)
    for _ in range(data.draw(st.integers(1, 12))):
        frame = frames.Frame(data.draw(types), data.draw(st.integers(0, 5)), data.draw(st.binary(max_size=12)))
        if any(isinstance(action, r.Broken) for action in m.take(frame)):
            return


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 6), st.sets(st.integers(0, 5)))
def test_after_a_crash_anywhere_exactly_the_unrecorded_and_undropped_calls_are_executed(order, recorded, dropped):
    """Six concurrent calls, answered in any order, killed after any number of recorded answers, some of them dropped."""
    answers = list(order[:recorded])
    m = machine(answers)
    executed = [a.call.n for n in range(6) for a in m.take(call(n)) if isinstance(a, r.Execute)]
    for n in sorted(dropped):
        if recorded:
            m.take(drop(n))
    for d, n in enumerate(answers):
        m.sending(d, n)
    executed += [a.call.n for a in m.take(idle(recorded)) if isinstance(a, r.Execute)]
    gone = dropped if recorded else set()
    assert sorted(executed) == sorted(set(range(6)) - set(answers) - gone)
    assert len(executed) == len(set(executed))


def test_no_state_is_left_without_a_way_to_be_settled_or_dropped():
    for state, event in itertools.product(r.CallState, ("settle",)):
        assert (state, event) in r.TRANSITIONS


def test_open_calls_hold_a_bounded_number_of_bytes():
    """Arguments and outcomes count from the call to its answer; what is answered or dropped counts no more."""
    text = {"x": "x" * 300}
    m = machine()
    for n in range(3):
        assert names(m.take(call(n, arguments=text))) == ["Execute"]
    assert names(m.take(drop(0))) == ["Cancel"]
    m.settled(r.Made(1, "tool", "at_least_once", "main/x", b"", b""))
    assert names(m.take(call(3, "step", text))) == ["Execute"]
    m.running(3)
    assert names(m.take(frames.Frame(frames.RESULT, 3, b"x" * 500))) == ["Broken"]
    m = machine()
    assert [names(m.take(call(n, arguments=text)))[0] for n in range(4)] == ["Execute", "Execute", "Execute", "Broken"]
