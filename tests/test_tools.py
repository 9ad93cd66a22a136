"""mcp_server/tools.py: the words a model pays for, and the refusals of what it sends."""

import json
import re

import pytest
from agent_kernel import Folder, Grants
from agent_kernel.base.errors import ArgumentError, KernelError
from agent_kernel_mcp.tools import EXPORT, TOOLS, named, served

NAMES = [
    "sandbox_run", "sandbox_read", "run_start", "run_get", "run_send", "run_approve", "run_control", "memory_add", "memory_search",
    "memory_forget", "memory_blocks", "memory_edit", "skill_search", "skill_load", "skill_run",
]  # fmt: skip


ALL = (*TOOLS, EXPORT)


def schemas(schema):
    yield schema
    for inner in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from schemas(inner)


def test_these_tools_and_no_others():
    assert [tool.name for tool in TOOLS] == NAMES


@pytest.mark.parametrize(("writable", "more"), [(False, []), (True, ["sandbox_export"])])
def test_export_is_there_where_a_folder_is_shared_for_writing(tmp_path, writable, more):
    grants = Grants(folders=(Folder(tmp_path, writable=writable), Folder(tmp_path)))
    assert [tool.name for tool in served(grants)] == [*NAMES, *more]


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool.name)
def test_every_schema_is_flat_typed_and_untitled(tool):
    for schema in schemas(tool.input_schema):
        assert schema["type"] in ("string", "boolean", "integer", "number", "array", "object")
        assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title"} & set(schema)
        assert schema["type"] != "array" or "items" in schema
    assert set(tool.required) <= set(tool.parameters)
    json.dumps(tool.input_schema)


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool.name)
def test_every_tool_is_described_in_one_to_four_sentences_and_titled(tool):
    assert 1 <= len([part for part in re.split(r"[.!?](?:\s|$)", tool.description) if part.strip()]) <= 4
    assert tool.title
    assert re.fullmatch(r"[a-z_]{1,64}", tool.name)


def test_no_tool_reads_and_destroys():
    assert [tool.name for tool in ALL if tool.reads] == [
        "sandbox_read", "run_get", "memory_search", "memory_blocks", "skill_search", "skill_load",
    ]  # fmt: skip
    assert [tool.name for tool in ALL if tool.destroys] == [
        "run_approve", "run_control", "memory_forget", "sandbox_export",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "words"),
    [
        ("sandbox_run", {"code": "1", "timeout": 5}, "argument.unknown", ["'timeout'", "'timeout_s'", "Allowed: code, language"]),
        ("sandbox_run", {"cmd": "ls"}, "argument.unknown", ["'cmd'", "'code'"]),
        ("sandbox_run", {"code": "1", "session": "s"}, "argument.unknown", ["'session'"]),
        ("sandbox_run", {}, "argument.missing", ["'code'"]),
        ("sandbox_run", {"code": None}, "argument.missing", ["'code'"]),
        ("sandbox_run", {"code": ["a"]}, "argument.wrong_type", ["code must be a string", "an array", '["a"]']),
        ("sandbox_run", {"code": "1", "timeout_s": "soon"}, "argument.wrong_type", ["timeout_s must be a number", '"soon"']),
        ("sandbox_run", {"code": "1", "timeout_s": True}, "argument.wrong_type", ["a boolean"]),
        ("sandbox_run", {"code": "1", "timeout_s": -1}, "argument.invalid", ["timeout_s", "0", "-1"]),
        ("sandbox_run", {"code": "1", "memory_mb": 10**400}, "argument.invalid", ["memory_mb"]),
        ("sandbox_run", {"code": "1", "memory_mb": 1.5}, "argument.wrong_type", ["an integer"]),
        ("sandbox_run", {"code": "1", "language": "pyhton"}, "argument.invalid", ["python, bash", "Did you mean 'python'?"]),
        ("sandbox_run", {"code": "1", "files": {"a": 1}}, "argument.wrong_type", ["files['a'] must be a string"]),
        ("sandbox_run", {"code": "1", "files": "a.txt"}, "argument.wrong_type", ["files must be an object"]),
        ("memory_add", {"items": [{"txt": "x"}]}, "argument.unknown", ["items[0]", "'txt'", "'text'"]),
        ("memory_add", {"items": [{"key": "x"}]}, "argument.missing", ["items[0]", "'text'"]),
        ("memory_add", {"items": [{"text": "x"}, "y"]}, "argument.wrong_type", ["items[1] must be an object"]),
        ("memory_search", {"tags": ["a", 1]}, "argument.wrong_type", ["tags[1]"]),
        ("run_send", {"run_id": "r", "content": "[1]"}, "argument.wrong_type", ["content must be an object"]),
        ("run_start", {"program": "p", "input": '{"a": 1, "a": 2}'}, "argument.duplicate_key", ["run_start: input", "'a'"]),
        ("run_start", {"program": "p", "input": '{"a": NaN}'}, "argument.invalid_json", ["run_start: input", "NaN"]),
        ("run_start", {"program": "p", "input": '{"a": "\\ud800"}'}, "argument.invalid_json", ["lone surrogate"]),
        ("run_start", {"program": "p", "input": '{"a":' * 100 + "1" + "}" * 100}, "argument.too_deep", ["input", "64"]),
        ("sandbox_run", {"code": "1", "files": '{"a": "b"'}, "argument.invalid_json", ["files", "not JSON", "delimiter"]),
        ("run_control", {"run_id": "r", "action": "stop"}, "argument.invalid", ["cancel, pause, resume, retry"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(tool, arguments, code, words):
    with pytest.raises(KernelError) as refused:
        named(tool).convert(arguments)
    assert refused.value.code == code
    for word in words:
        assert word in refused.value.message


@pytest.mark.parametrize(
    ("tool", "given", "taken"),
    [
        ("sandbox_run", {"code": "1", "files": '{"a": "b"}'}, {"code": "1", "files": {"a": "b"}}),
        ("memory_add", {"items": '[{"text": "x", "tags": "[\\"a\\"]"}]'}, {"items": [{"text": "x", "tags": ["a"]}]}),
        ("sandbox_run", {"code": '{"a": 1}', "stdin": None}, {"code": '{"a": 1}'}),
        ("sandbox_run", {"code": "1", "memory_mb": 64.0}, {"code": "1", "memory_mb": 64}),
        ("run_start", {"program": "p", "input": {"a": None, "b": [1, {"c": 2}]}}, {"program": "p", "input": {"a": None, "b": [1, {"c": 2}]}}),
        ("memory_search", {"ids": ["a"], "include_retired": True}, {"ids": ["a"], "include_retired": True}),
    ],
)  # fmt: skip
def test_what_models_send_in_another_form_is_taken(tool, given, taken):
    assert named(tool).convert(given) == taken


def test_an_unknown_tool_is_refused_with_the_nearest_name():
    with pytest.raises(ArgumentError, match=r"tool\.unknown.*'sandbox_rum'.*Did you mean 'sandbox_run'\?"):
        named("sandbox_rum")
