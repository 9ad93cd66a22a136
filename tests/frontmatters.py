"""SKILL.md texts for fuzzing: mostly what people write, with what goes wrong mixed in."""

NAMES = ["pdf", "pdf", "pdf", "PDF", "p-d-f", "-pdf", "pdf-", "p--d", "pdf_x", "pdf tool", "日本", "ﬁle", "p²", "x" * 64, "x" * 65, "123", "true", "null", "~", "''", '""', '"pdf"', "'pdf'", " pdf ", "pdf # c", "1.0", "[pdf]", "|\n  pdf", ">\n  pdf\n", "&a pdf", "!!str pdf", "*a", "pdf:", "pdf: x", "@pdf", "`pdf", "%pdf", "?pdf", "-", "- pdf", "ＰＤＦ", "İ", "ǅ", "pdf\t", "\tpdf"]  # fmt: skip
WORDS = ["Reads", "files", "when:", "a", "# not", "#not", "--- ", "---", "it's", '"quoted"', "key: value", "é", "日本語", "\u00a0", "\u2028", "\u0085", "\ufeff", "🙂", "'", '"', "\\", "\\n", "{", "}", "[", "]", ",", "&", "*", "!", "|", ">", "%", "@", "`", "<<", "=", "~", "null", "1", "\t", "...", "-", "?", ":", "::", "a:b", "http://x.y/z?a=b&c", "\x07", "\x7f", "\x9f"]  # fmt: skip
FIELDS = ["name", "description", "license", "compatibility", "metadata", "allowed-tools", "version", "author", "tools", "when_to_use", '"name"', "'description'", "<<", "=", "name ", "? name", "- name", "[name]", "{name: x}", "日本", "1", "true", "null", "", "a b", "a#b", "a: b", "&a name", "!!str name", "x" * 1025]  # fmt: skip


def frontmatter(dice):
    """A text that begins as a SKILL.md does, most times; half of them with one odd thing in it at most."""
    if dice.random() < 0.5:
        return _tame(dice)
    lines = [line for _ in range(dice.choice([0, 1, 2, 2, 3, 3, 4, 6])) for line in _entry(dice, 0)]
    if dice.random() < 0.7:
        lines = [
            f"name: {dice.choice(NAMES[:4] if dice.random() < 0.7 else NAMES)}",
            f"description: {_scalar(dice)}",
            *lines,
        ]
    if dice.random() < 0.08:
        lines.insert(dice.randint(0, len(lines)), dice.choice(["", "# comment", "   ", "\t", "---", "...", "%YAML 1.1", "- item", "text", "}", "key"]))  # fmt: skip
    opening = dice.choice(["---\n"] * 30 + ["--- \n", "---", "----\n", "\n---\n", "\ufeff---\n", " ---\n", "", "---\r\n", "--- # c\n", "---x\n"])  # fmt: skip
    closing = dice.choice(["---\n"] * 30 + ["", "--- \n", "...\n", "----\n", "---"])
    end = dice.choice(["\n"] * 20 + ["\r\n", "\r", "\n\n"])
    return opening + end.join([*lines, ""]) + closing + dice.choice(["", "# Title\n", "body --- more\n", "\n\n"])


def _tame(dice):
    entries = {
        "name": "pdf",
        "description": "Reads PDF files and fills forms.",
        "license": "MIT",
        "allowed-tools": "Read Bash(git:*)",
    }
    odd = dice.choice(
        ["name", "description", "license", "compatibility", "allowed-tools", "version", "metadata", dice.choice(FIELDS)]
    )
    entries[odd] = _scalar(dice) if dice.random() < 0.7 else dice.choice(NAMES)
    for name in dice.sample(["license", "allowed-tools"], dice.randint(0, 2)):
        entries.pop(name, None)
    lines = [f"{name}: {value}" for name, value in entries.items()]
    if dice.random() < 0.3:
        lines += [
            "metadata:",
            *(
                f"  {key}: {_scalar(dice)}"
                for key in dice.sample(["author", "version", "tags", "1"], dice.randint(0, 3))
            ),
        ]
    return "\n".join(["---", *lines, "---", "# Title", ""])


def _entry(dice, depth):
    pad = "  " * depth if dice.random() < 0.95 else " " * dice.randint(0, 5)
    key = dice.choice(FIELDS[:6] if dice.random() < 0.75 else FIELDS)
    kind = dice.random()
    if kind < 0.6 or depth > 2:
        gap = dice.choice([" "] * 12 + ["", "  ", "\t", " \t"])
        return [f"{pad}{key}:{gap}{_scalar(dice)}"]
    if kind < 0.75:
        inner = [line for _ in range(dice.randint(0, 3)) for line in _entry(dice, depth + 1)]
        return [f"{pad}{key}:", *inner]
    if kind < 0.85:
        return [
            f"{pad}{key}:",
            *(f"{pad}{dice.choice(['  ', '', ' '])}- {_scalar(dice)}" for _ in range(dice.randint(0, 3))),
        ]
    if kind < 0.95:
        style = dice.choice(["|", ">", "|-", ">-", "|+", ">+", "|2", "> # c", "|x"])
        return [f"{pad}{key}: {style}", *(f"{pad}  {_plain(dice)}" for _ in range(dice.randint(0, 3)))]
    return [f"{pad}{key}: {_plain(dice)}", f"{pad}{dice.choice(['  ', '', '    '])}{_plain(dice)}"]


def _scalar(dice):
    kind = dice.random()
    if kind < 0.45:
        return "Reads PDF files and fills forms."[: dice.randint(1, 32)]
    if kind < 0.65:
        return _plain(dice)
    if kind < 0.72:
        return f'"{_plain(dice)}"'
    if kind < 0.79:
        return f"'{_plain(dice)}'"
    return dice.choice([*NAMES, "", "[a, b]", "{a: b}", "x" * 500, "x" * 501, "d" * 1024, "d" * 1025, "1.0", "2026-01-01", "yes", "0x1f", "!!binary aGk=", "!x y", "*x", "&x y", "|", ">", "{", "[", "'", '"', "# c", "a #c", "a # c"])  # fmt: skip


def _plain(dice):
    return " ".join(dice.choice(WORDS if dice.random() < 0.4 else WORDS[:4]) for _ in range(dice.randint(0, 6)))
