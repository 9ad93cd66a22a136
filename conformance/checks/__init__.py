"""One module per area, and grants, which concern several; importing this package binds every check to its clause."""

from . import durable, grants, memory, orchestration, protocol, sandbox, skills

AREAS = (protocol, sandbox, grants, durable, memory, skills, orchestration)
