"""What the server costs a conversation, counted with the tokenizer of current models (o200k_base)."""

import json
from pathlib import Path

import pytest
from agent_kernel import Folder, Grants
from agent_kernel_mcp.profiles import tools_of
from agent_kernel_mcp.server import instructions
from agent_kernel_mcp.tools import TOOLS, served
from bpe_openai import get_encoding

TOKENS = get_encoding("o200k_base")
WRITABLE = Grants(folders=(Folder(Path("/home/me/project"), writable=True),))


def cost(value):
    """As a host hands it to its model."""
    return len(TOKENS.encode(value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))))


def seen(tools):
    return [{"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema} for tool in tools]


def test_the_tokenizer_is_the_one_that_is_meant():
    assert TOKENS.n_vocab == 200_019
    assert TOKENS.encode("hello world") == [24912, 2375]


def test_the_default_tools_cost_less_than_two_thousand_tokens():
    assert cost(seen(TOOLS)) < 2000


@pytest.mark.parametrize("profile", ["anthropic", "server-memory"])
def test_all_tools_cost_less_than_two_and_a_half_thousand(profile):
    assert cost(seen(served(WRITABLE))) < 2500
    assert cost(seen(tools_of([profile], WRITABLE))) < 2500


@pytest.mark.parametrize(
    "grants", [Grants(), WRITABLE, Grants(folders=tuple(Folder(Path(f"/{n}" * 90)) for n in range(20)))]
)
def test_the_instructions_stay_below_one_and_a_half_kilobytes_and_name_what_is_shared(grants):
    text = instructions(grants)
    assert len(text.encode()) < 1500
    for folder in grants.folders[:1]:
        assert str(folder.path)[:100] in text
    assert ("agent-kernel mcp --folder DIR" in text) is not bool(grants.folders)
    assert ("sandbox_export" in text) is any(folder.writable for folder in grants.folders)
