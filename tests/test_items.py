"""Items and budgets: what an answer is bound to, who may give it, what a schema refuses."""

from pathlib import Path

import pytest
from agent_kernel.base import budgets, items
from agent_kernel.base.errors import ArgumentError, Conflict, Denied

ASKED = {"run_id": "run_a", "n": 3, "kind": "approve", "prompt": "Send?", "details": {"to": "x"}, "schema": None}


@pytest.mark.parametrize(
    "change",
    [{"run_id": "run_b"}, {"n": 4}, {"kind": "resolve"}, {"prompt": "Send!"}, {"details": None}, {"schema": {}}],
)
def test_the_digest_changes_with_everything_the_person_was_shown(change):
    assert items.digest(**ASKED) != items.digest(**{**ASKED, **change})


def decide(**change):
    whole = items.digest(**ASKED)
    given = {"item_digest": whole, "given": whole[:12], "decision": "approve", "channel": "person"}
    items.check_approval(**{**given, "allowed_in_host": False, "item_id": "itm_1", "folder": Path("/s t"), **change})


def test_a_person_approves_with_the_digest_he_was_shown():
    decide()
    decide(given=items.digest(**ASKED))


@pytest.mark.parametrize("given", ["", "0" * 12, items.digest(**ASKED)[:11], items.digest(**{**ASKED, "n": 9})])
def test_another_digest_is_refused_as_changed(given):
    with pytest.raises(Conflict, match=r"item\.changed"):
        decide(given=given)


def test_the_client_that_asked_may_deny_but_not_approve():
    decide(channel="host", decision="deny")
    with pytest.raises(Denied, match="agent-kernel approve itm_1 --state '/s t'"):
        decide(channel="host")
    decide(channel="host", allowed_in_host=True)


def test_an_unknown_decision_is_refused():
    with pytest.raises(ArgumentError, match="approve"):
        decide(decision="yes")


SCHEMA = {
    "type": "object",
    "properties": {
        "pick": {"type": "string", "enum": ["a", "b"]},
        "n": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "both": {"anyOf": [{"type": "null"}, {"type": "number"}]},
    },
    "required": ["pick"],
    "additionalProperties": False,
}


def test_an_answer_that_fits_is_taken():
    items.check(SCHEMA, {"pick": "a", "n": 2, "tags": ["x"], "both": None})


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ([], "content does not"),
        ({}, "content.pick"),
        ({"pick": "c"}, "content.pick"),
        ({"pick": "a", "n": 0}, "content.n"),
        ({"pick": "a", "n": True}, "content.n"),
        ({"pick": "a", "tags": [1]}, r"content.tags\[0\]"),
        ({"pick": "a", "tags": ["x"] * 3}, "content.tags"),
        ({"pick": "a", "both": "x"}, "content.both"),
        ({"pick": "a", "more": 1}, "content.more"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_its_place(answer, place):
    with pytest.raises(ArgumentError, match=place):
        items.check(SCHEMA, answer)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        {"type": "strin"},
        {"properties": []},
        {"required": 1},
        {"properties": {"a": {"enum": 1}}},
        {"items": 1},
    ],
)
def test_what_is_no_schema_is_refused_before_the_question_is_put(schema):
    with pytest.raises(ArgumentError, match="schema"):
        items.check_schema(schema)


def test_keywords_that_are_not_checked_are_known_by_name():
    assert items.unchecked({"type": "object", "properties": {"a": {"pattern": "x", "type": "string"}}}) == ["pattern"]


def test_a_budget_is_exceeded_only_past_its_number():
    assert budgets.exceeded({"steps": 2}, {"steps": 2}) is None
    assert budgets.exceeded({"steps": 2}, {"steps": 3}) == "steps"


@pytest.mark.parametrize(
    "budget", [{"tokens": 5}, {"cost_usd": 1}, {"steps": 0}, {"steps": True}, {"steps": "5"}, [], {"x": 1}]
)
def test_a_budget_that_is_not_enforced_is_refused(budget):
    with pytest.raises(ArgumentError):
        budgets.checked(budget)


def test_a_childs_budget_stays_within_what_the_parent_has_left():
    assert budgets.narrowed({"steps": 50}, {"steps": 10, "wall_s": 60}, {"steps": 4, "wall_s": 20}) == {
        "steps": 6,
        "wall_s": 40,
    }
    assert budgets.narrowed({"steps": 2}, {"steps": 10}, {}) == {"steps": 2}


def test_a_refused_answer_is_told_what_would_fit():
    with pytest.raises(ArgumentError, match=r"content\.a .*must be integer, not string"):
        items.check({"properties": {"a": {"type": "integer"}}}, {"a": "x"})
