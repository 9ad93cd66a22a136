"""Two verdicts on one SKILL.md: the reference validator's, word for word, and the hosts'."""

import collections
import os
import random
import re
import sys
from pathlib import Path

import pytest
from agent_kernel import skills
from agent_kernel.base.limits import Limits
from agent_kernel.base.skillmd import publishing_errors, read, strict_errors
from agent_kernel.skills import validate
from skills_ref import validator as reference

sys.path.insert(0, str(Path(__file__).parent))
from frontmatters import frontmatter

ONLY = "Only ['allowed-tools', 'compatibility', 'description', 'license', 'metadata', 'name'] are allowed."
YAML = "Invalid YAML in frontmatter:"


def md(*lines, body="Do it."):
    return "\n".join(["---", *lines, "---", body, ""])


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (md("name: pdf", "description: Reads."), []),
        (md("name: pdf", "description: Reads.", "license: MIT", "metadata:", "  a: 1", "allowed-tools: Read"), []),
        ("name: pdf", ["SKILL.md must start with YAML frontmatter (---)"]),
        ("\ufeff---\nname: pdf\n---\n", ["SKILL.md must start with YAML frontmatter (---)"]),
        ("---\nname: pdf\n", ["SKILL.md frontmatter not properly closed with ---"]),
        ("---\n---\n", ["SKILL.md frontmatter must be a YAML mapping"]),
        (md("- a"), ["SKILL.md frontmatter must be a YAML mapping"]),
        (md("just text"), ["SKILL.md frontmatter must be a YAML mapping"]),
        (md("name: pdf"), ["Missing required field in frontmatter: description"]),
        (md("description: d"), ["Missing required field in frontmatter: name"]),
        (md("name: pdf", "description:"), ["Field 'description' must be a non-empty string"]),
        (md("name: ' '", "description: d"), ["Field 'name' must be a non-empty string"]),
        (md("name: pdf", "description:", "  - d"), ["Field 'description' must be a non-empty string"]),
        (
            md("version: 1", "name: pdf", "description: d", "author: me"),
            [f"Unexpected fields in frontmatter: author, version. {ONLY}"],
        ),
        (
            md("name: PDF--x_", "description: d"),
            [
                "Skill name 'PDF--x_' must be lowercase",
                "Skill name cannot contain consecutive hyphens",
                "Skill name 'PDF--x_' contains invalid characters. Only letters, digits, and hyphens are allowed.",
                "Directory name 'pdf' must match skill name 'PDF--x_'",
            ],
        ),
        (
            md("name: -pdf", "description: d"),
            ["Skill name cannot start or end with a hyphen", "Directory name 'pdf' must match skill name '-pdf'"],
        ),
        (
            md(f"name: {'a' * 65}", "description: d"),
            [
                f"Skill name '{'a' * 65}' exceeds 64 character limit (65 chars)",
                f"Directory name 'pdf' must match skill name '{'a' * 65}'",
            ],
        ),
        (md("name: pdf", f"description: {'d' * 1025}"), ["Description exceeds 1024 character limit (1025 chars)"]),
        (
            md("name: pdf", "description: d", f"compatibility: {'c' * 501}"),
            ["Compatibility exceeds 500 character limit (501 chars)"],
        ),
        (
            md("name: pdf", "description: d", "compatibility:", "  a: b"),
            ["Field 'compatibility' must be a string"],
        ),
        # everything is a text in StrictYAML; types of the other fields are nobody's concern
        (md("name: pdf", "description: 123", "license:", "  - MIT", "compatibility:"), []),
        # there is no line anchor: three hyphens in a plain value end the front matter
        ("---\nname: pdf\ndescription: a --- b\n---\n", []),
    ],
)
def test_the_strict_verdict_has_the_references_words(text, errors):
    assert strict_errors(text, "pdf") == errors


@pytest.mark.parametrize(
    "lines",
    [
        ["description: [a]"], ["description: {a: b}"], ["description: &x d"], ["description: *x"], ["description: !!str d"],
        ["name: again", "description: d"], ["description: a: b"], ["description: 'open"], ["description: a\tb\x07"], ["description: d", "<<: x"],
        ["description: d", "metadata:", "  a:", "    b: c", "  d:", "      e: f"], ["description: d", "...", "more: 1"],
        ["description: @d"], ['description: "\\q"'], ["? [a]", ": b"],
    ],
)  # fmt: skip
def test_what_strictyaml_refuses_is_refused(lines):
    [error] = strict_errors(md("name: pdf", *lines), "pdf")
    assert error.startswith(YAML)


def test_tags_and_aliases_are_text_to_hosts():
    front = read(md("description: d", "a: !!python/object:os.system {}", "b: &b [x]", "c: *b"), "pdf").front
    assert front == {"description": "d", "a": "!!python/object:os.system {}", "b": "&b [x]", "c": "*b"}


def test_names_are_compared_in_one_normal_form():
    assert strict_errors(md("name: ﬁle²", "description: d"), "file2") == []
    assert strict_errors(md("name: 日本", "description: d"), "日本") == []


def test_hosts_read_what_the_reference_refuses():
    seen = read(md("name: other", "description: d", "version: 1.0", "tools: [a, b]", "since: 2026-01-01"), "pdf")
    assert (seen.problem, seen.name, seen.description, seen.body) == (None, "other", "d", "Do it.")
    assert seen.front == {
        "name": "other",
        "description": "d",
        "version": 1.0,
        "tools": ["a", "b"],
        "since": "2026-01-01",
    }
    assert seen.warnings == ("The name 'other' is not the folder's, 'pdf'.",)


@pytest.mark.parametrize(
    "value",
    ["Use when: you must", "@mention", "a: b: 'c'", 'say "no": then \\ stop', "[not closed", "*star: x"],
)
def test_a_value_that_nobody_quoted_is_quoted_and_read(value):
    seen = read(md("name: pdf", f"description: {value}", "license: MIT"), "pdf")
    assert (seen.problem, seen.description, seen.front["license"]) == (None, value, "MIT")
    assert seen.warnings == ("The front matter is not YAML as it stands; it was read with its values quoted.",)


def test_line_ends_and_a_byte_order_mark_do_not_matter_to_hosts():
    assert read("\ufeff---\r\nname: pdf\r\ndescription: a --- b\r\n---\r\n\r\nBody\r\n", "pdf").description == "a --- b"
    assert read("---\rname: pdf\rdescription: d\r---\rBody", "pdf").body == "Body"


def test_a_missing_name_is_the_folders():
    assert read(md("description: d"), "pdf").name == "pdf"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# Title\n", "does not begin with ---"),
        ("---\nname: pdf\n", "not closed"),
        (md("name: pdf"), "no description"),
        (md("name: pdf", "description: null"), "no description"),
        (md("- a"), "not a mapping"),
        (md("description: d", "more:", "  - &a x", "  - *a"), "aliases"),
        (md("description: d", "x:", "  - !!python/object:os.system {}"), "python"),
        (md("description: d", "x:", "  - 2026-99-99"), "month"),
        (md("description: d", "x: " + "[" * 51 + "]" * 51), "nested deeper than 50"),
        (md("description: d", "? {a: b}", ": c"), "does not load"),
        (md("description: " + "d" * 40_000), "40014 characters"),
    ],
)
def test_what_hosts_cannot_read_says_why(text, words):
    assert words in (read(text, "pdf").problem or "")


def test_no_text_raises():
    for text in (
        "",
        "---",
        "---\n---",
        "--- ---\n---",
        "---\n\0\n---\n",
        "---\n\ud800: x\n---\n",
        "---\n" + "- " * 3000 + "\n---\n",
        "---\n" + "{" * 4000 + "\n---\n",
    ):
        read(text, "pdf")
        assert strict_errors(text, "pdf")


def test_publishing_needs_the_standards_name_and_description_but_not_the_folders_name():
    assert publishing_errors(read(md("name: other", "description: d", "version: 1"), "pdf")) == []
    assert publishing_errors(read(md("name: Other Name", "description: d"), "pdf"))
    assert publishing_errors(read(md("name: pdf", f"description: {'d' * 1025}"), "pdf"))


# --- beside the reference

GAP = re.compile("[\x85\u2028\u2029]")
"""Ends of lines for PyYAML everywhere, for the reference only in some places."""


def verdicts(folder, text):
    """The reference's errors and ours, cut after the prefix of a YAML error. None: the reference raises something else."""
    (folder / "SKILL.md").write_bytes(text.encode("utf8", "surrogatepass"))
    ours = [YAML if error.startswith(YAML) else error for error in validate(folder, Limits())["strict"]["errors"]]
    try:
        theirs = [YAML if error.startswith(YAML) else error for error in reference.validate(folder)]
    except (AttributeError, ValueError, IndexError, TypeError):  # control characters and the like end it so
        theirs = None
    return theirs, ours


def compared(folder, seeds):
    counts = collections.Counter()
    for seed in seeds:
        text = frontmatter(random.Random(seed))
        theirs, ours = verdicts(folder, text)
        if theirs is None:
            assert ours, f"the reference crashes on {text!r}, and we find nothing"
        elif not GAP.search(text):
            assert ours == theirs, (seed, text)
        counts["valid" if theirs == [] else "yaml" if theirs == [YAML] else "crash" if theirs is None else "other"] += 1
    return counts


def test_the_strict_verdict_is_the_references_on_generated_texts(tmp_path):
    (tmp_path / "pdf").mkdir()
    counts = compared(tmp_path / "pdf", range(1500))
    assert min(counts.values()) > 50  # all kinds of verdicts were among them
    assert len(counts) == 4


@pytest.mark.long
def test_the_strict_verdict_is_the_references_on_twenty_thousand_texts(tmp_path):
    (tmp_path / "pdf").mkdir()
    compared(tmp_path / "pdf", range(10**6, 10**6 + 20_000))


def test_the_strict_verdict_on_the_projects_own_skills_is_the_references():
    own = [*(Path(skills.__file__).parent / "builtin_skills").iterdir()]
    assert own
    for folder in own:
        assert validate(folder, Limits())["strict"]["errors"] == reference.validate(folder) == []


def test_hostile_files_never_raise(tmp_path):
    folder = tmp_path / "pdf"
    folder.mkdir()
    dice = random.Random(1)
    for seed in range(600):
        text = frontmatter(random.Random(seed)).encode("utf8", "surrogatepass")
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(text) + 1)
            text = (
                text[:at]
                + dice.choice(
                    [b"\xff", b"\0", b"\xed\xa0\x80", b"\n", b":", b"---", b"\t", b"{" * 60, dice.randbytes(3)]
                )
                + text[at:]
            )
        (folder / "SKILL.md").write_bytes(text)
        verdict = validate(folder, Limits())
        assert isinstance(verdict["loads"], bool)
        assert verdict["loads"] or not verdict["publishable"]
    (folder / "SKILL.md").unlink()
    for n, spoil in enumerate((os.mkfifo, Path.mkdir, lambda p: p.symlink_to(p), lambda p: p.symlink_to("/dev/zero"))):
        odd = tmp_path / f"odd{n}"
        odd.mkdir()
        spoil(odd / "SKILL.md")
        assert not validate(odd, Limits())["loads"]
