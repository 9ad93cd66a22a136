"""The conformance suite of the agent kernel's wire contract: clauses as data, checks over MCP, a broken twin for every MUST.

It knows a server only by the command that starts it, and imports nothing of the kernel. SPEC.md is the contract in prose.
"""
