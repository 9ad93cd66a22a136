"""One module per area; importing this package binds every check to its clause."""

from . import durable, memory, orchestration, protocol, sandbox, skills

AREAS = (protocol, sandbox, durable, memory, skills, orchestration)
