"""mcp_server/markdown.py: which facts a Markdown file becomes."""

import re

from agent_kernel_mcp.markdown import entries, has_entries, note_of
from hypothesis import given
from hypothesis import strategies as st

NOTE = """---
title: Coffee
type: recipe
tags: [coffee, "morning"]
status: active
created: 2024-01-15
updated: 2024-02-15T10:00:00Z
---
# Coffee

A paragraph
of two lines.

## Methods
- Pour over is clear #taste
  - with a fine filter

  and patience
- French press
1. first

Setext
------
```python
# no heading

x = 1
```
| a | b |
|---|---|

---
### Leaf without a body
"""


def test_paragraphs_items_and_code_are_facts_under_their_headings():
    note = note_of(NOTE)
    assert [(part.line, part.text, part.under) for part in note.parts] == [
        (2, "status: active", ("Coffee",)),
        (11, "A paragraph\nof two lines.", ("Coffee",)),
        (15, "Pour over is clear #taste\n  - with a fine filter\n\n  and patience", ("Coffee", "Methods")),
        (19, "French press", ("Coffee", "Methods")),
        (20, "first", ("Coffee", "Methods")),
        (24, "```python\n# no heading\n\nx = 1\n```", ("Coffee", "Setext")),
        (29, "| a | b |\n|---|---|", ("Coffee", "Setext")),
        (33, "Leaf without a body", ("Coffee", "Setext")),
    ]
    assert (note.kind, note.tags, note.time) == ("recipe", ("coffee", "morning"), 1707991200.0)


def test_tags_are_read_in_the_forms_people_write():
    for front in ("tags: a, b", "tags: [a, 'b']", "tags:\n- a\n- b", "tags:\n  - a\n  - b"):
        assert note_of(f"---\n{front}\n---\nx").tags == ("a", "b")
    assert note_of("---\ntags:\n  a: 1\n---\nx").parts[0].text == "tags:\n  a: 1"


def test_front_matter_that_is_none_is_text():
    assert [part.text for part in note_of("---\ntitle: x\nno end").parts] == ["title: x\nno end"]
    assert [part.text for part in note_of("---\ntitle: only a title\n---\n").parts] == ["only a title"]


def test_entries_are_what_stands_between_section_signs():
    text = "I like tea\n§\n\n§\nAnna\nfrom § Graz\n §\n"
    assert has_entries(text)
    assert [(part.line, part.text) for part in entries(text).parts] == [(1, "I like tea"), (5, "Anna\nfrom § Graz")]
    assert not has_entries("a § b")


LINES = st.lists(
    st.one_of(
        st.sampled_from(["", "---", "# one two", "###### six", "- item", "  - nested", "1. num", "```", "~~~", "===", "    code", "> quote", "a: b"]),
        st.text(alphabet="ab -#`*:\t.1", max_size=12),
    ),
    max_size=25,
).map("\n".join)  # fmt: skip


@given(LINES)
def test_no_word_of_a_file_is_lost(text):
    note = note_of(text)
    kept = " ".join(
        [*(part.text for part in note.parts), *(name for part in note.parts for name in part.under), *note.tags]
    )
    words = set(re.findall(r"[ab]+", text))
    front = {"a"} if text.startswith("---") else set()
    assert words - front <= set(re.findall(r"[ab]+", kept)) | {note.kind}
    assert all(part.text.strip() for part in note.parts)
    assert all(1 <= part.line <= text.count("\n") + 1 for part in note.parts)
