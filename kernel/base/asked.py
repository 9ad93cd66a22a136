"""What a call asks for, held against the operator's limits and the grants of its caller. Pure.

Guarantees
1. More than a limit is `limit.exceeded`, a host that is not granted `egress.denied`, packages `packages.denied`; each names the operator's
   line that would allow it. Nothing is lowered silently.
2. Text that cannot be text is refused by the name of its argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ArgumentError, Denied, LimitExceeded
from .limits import Limits
from .policy import Grants

__all__ = ["LANGUAGES", "MEMORY_MB", "Asked", "utf8"]

LANGUAGES = ("python", "bash")
MEMORY_MB, MEMORY_MB_MIN = 512, 32


@dataclass(frozen=True, slots=True)
class Asked:
    language: str
    timeout_s: float | None
    memory_mb: int
    packages: Sequence[str] = ()
    allow_hosts: Sequence[str] = ()

    def check(self, limits: Limits, grants: Grants) -> None:
        if self.language not in LANGUAGES:
            raise ArgumentError(
                "argument.invalid", f"language {self.language!r} is not one of {', '.join(LANGUAGES)}. Use one of them."
            )
        if self.packages:
            raise Denied(
                "packages.denied",
                f"{_listed(self.packages)}: sandboxes have the standard library only. The line that allows packages is `--allow-packages`;"
                " this version builds none yet, so work with the standard library.",
            )
        if self.allow_hosts:
            beyond = [host for host in self.allow_hosts if host not in grants.hosts]
            line = " ".join(f"--allow-host {host}" for host in beyond)[:200]
            why = (
                f"The operator did not allow {'it' if len(beyond) == 1 else 'them'} (`{line}`)"
                if beyond
                else "It is allowed"
            )
            raise Denied(
                "egress.denied",
                f"{_listed(self.allow_hosts)}: sandboxes reach no host. {why}, and this version connects none yet: put the data into `files`"
                " or a shared folder.",
            )
        if self.timeout_s is not None and not 0 < self.timeout_s <= limits.timeout_s_max:
            raise LimitExceeded(
                "limit.exceeded",
                f"timeout_s is {self.timeout_s:g}; it must be above 0 and at most {limits.timeout_s_max:g}."
                " The operator's line is `timeout_s_max` in [limits] of config.toml.",
            )
        if not MEMORY_MB_MIN <= self.memory_mb <= limits.memory_mb_max:
            raise LimitExceeded(
                "limit.exceeded",
                f"memory_mb is {self.memory_mb}; it must be between {MEMORY_MB_MIN} and {limits.memory_mb_max}."
                " The operator's line is `memory_mb_max` in [limits] of config.toml.",
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))[:200]


def utf8(name: str, text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            "argument.invalid", f"{name} holds a lone surrogate, which is not text. Remove it."
        ) from error
    if b"\0" in data and name != "stdin":
        raise ArgumentError("argument.invalid", f"{name} holds a NUL character. Remove it.")
    return data
