"""mcp_server/values.py: what a value of the kernel looks like on the wire, and how a long one is cut."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_kernel_mcp.values import compact, fitted, wire


@dataclass(frozen=True, slots=True)
class Inner:
    uri: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outer:
    exit_code: int | None
    stdout: str
    files: tuple[Inner, ...]
    duplicate: bool = False
    output: object = None
    where: Path | None = None


def test_empty_fields_are_left_out_and_zero_and_false_stay():
    assert wire(Outer(0, "", ())) == {"exit_code": 0, "duplicate": False}


def test_dataclasses_inside_become_objects():
    assert wire(Outer(1, "x", (Inner("sandbox://a"),), where=Path("/a")))["files"] == [
        {"uri": "sandbox://a", "size_bytes": 0}
    ]


def test_what_a_program_returned_stays_as_it_is():
    assert wire({"run_id": "r", "error": None, "output": {"a": None, "b": [], "c": ""}}) == {
        "run_id": "r",
        "output": {"a": None, "b": [], "c": ""},
    }


def test_a_value_of_no_known_kind_is_a_fault_and_no_guess():
    with pytest.raises(TypeError, match="bytes"):
        wire({"a": b"x"})


def test_a_short_reply_is_not_touched():
    value = {"stdout": "x" * 100}
    assert fitted(value, 1000, "sandbox://r") is value


def test_a_long_text_is_cut_in_the_middle_and_names_the_whole():
    text = "".join(f"{n:06d}\n" for n in range(20_000))
    cut = fitted({"exit_code": 0, "stdout": text, "stderr": "short"}, 16_000, "sandbox://r")
    assert 10_000 < len(compact(cut)) <= 16_000
    assert cut["stdout"].startswith("000000\n")
    assert cut["stdout"].endswith("019999\n")
    assert "characters cut" in cut["stdout"]
    assert (cut["stderr"], cut["exit_code"], cut["whole"]) == ("short", 0, "sandbox://r")


@pytest.mark.parametrize(
    "value",
    [
        {"steps": [{"n": n, "path": f"fetch[{n}]"} for n in range(5000)]},
        {"output": {f"name{n}": n for n in range(5000)}},
        {"output": "\x00\x01\x02" * 20_000},
        {"output": [[["deep" * 100] * 50] * 50] * 10},
        {"output": "😀" * 30_000},
    ],
)
def test_every_kind_of_long_reply_fits(value):
    cut = fitted(value, 16_000, "sandbox://r")
    assert len(compact(cut)) <= 16_000
    assert cut["whole"] == "sandbox://r"
    json.loads(compact(cut))


def test_the_first_and_the_last_entries_of_a_long_list_are_kept():
    cut = fitted({"steps": [{"n": n} for n in range(5000)]}, 4000, "sandbox://r")
    assert cut["steps"][0] == {"n": 0}
    assert cut["steps"][-1] == {"n": 4999}


def test_integers_past_64_bits_and_lone_surrogates_stay_readable():
    assert json.loads(compact({"output": [2**70, "\ud800"]}))["output"] == [2**70, "\ud800"]
