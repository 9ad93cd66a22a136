"""A broken twin for every MUST: a liar between the suite and a good server, which proves that the clause's check can fail.

A check that no server can fail says nothing. So every MUST has a twin: the real server behind a proxy (proxy.py) that breaks
this one sentence of the contract and as little else as it can. tests/test_conformance.py lets each twin fail its own clause,
and a long test asks that it passes nine tenths of the others.
"""

from . import durable, grants, memory, orchestration, protocol, sandbox, skills
from .twin import TWINS, Twin

__all__ = ["AREAS", "TWINS", "Twin"]

AREAS = (protocol, sandbox, grants, durable, memory, skills, orchestration)
