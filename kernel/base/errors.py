"""The exception tree: what can go wrong, and whose fault it is.

    KernelError                  never raised itself
      CallerError                the arguments, or what the caller may ask for
        ArgumentError            argument.*        a value of the wrong name, type or form
        NotFound                 *.unknown         no such id, name or uri for this principal
        Denied                   *.denied, ...     the operator did not allow it
        Conflict                 *.conflict, ...   it is no longer, or not yet, what the caller thinks
        LimitExceeded            limit.*, ...      more than the operator's limit
      GuestError                 guest.*           code in the sandbox broke the rules of its channel
      HostError                  state.*, host.*   the machine: disk, lock, missing isolation
      Overloaded                 *.overloaded      try again after `retry_after_s`
      KernelFault                kernel.fault      a bug of ours

Guarantees
1. `code` is a stable slug `area.what`; `message` says what happened, with which value, and what to do. Wording is not promised.
2. A guest program that fails is a result, not an exception: GuestError is for guests that break the protocol.
3. `to_wire()` is complete: `{code, message, fault, retryable}`; `from_wire()` gives back an equal error.

Not here: the guest's own `kernel.Error` (cell/guest.py), which carries the same four fields.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

__all__ = [
    "ArgumentError",
    "CallerError",
    "Conflict",
    "Denied",
    "Fault",
    "GuestError",
    "HostError",
    "KernelError",
    "KernelFault",
    "LimitExceeded",
    "NotFound",
    "Overloaded",
]

Fault = Literal["caller", "guest", "kernel", "host"]


class KernelError(Exception):
    fault: ClassVar[Fault]
    retryable: bool = False

    def __init__(self, code: str, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def to_wire(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "fault": self.fault, "retryable": self.retryable}

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> "KernelError":
        kind = _BY_FAULT.get(wire["fault"], KernelFault)
        return kind(wire["code"], wire["message"], retryable=wire["retryable"])


class CallerError(KernelError):
    fault = "caller"


class ArgumentError(CallerError):
    pass


class NotFound(CallerError):
    pass


class Denied(CallerError):
    pass


class Conflict(CallerError):
    pass


class LimitExceeded(CallerError):
    pass


class GuestError(KernelError):
    fault = "guest"


class HostError(KernelError):
    fault = "host"


class Overloaded(KernelError):
    fault = "kernel"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, code: str = "kernel.overloaded") -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class KernelFault(KernelError):
    fault = "kernel"

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Wrap an exception nobody expected; its type and text are the best report there is."""
        return cls("kernel.fault", f"{type(error).__name__}: {error}. This is a bug of the kernel; please report it.")


_BY_FAULT: dict[Fault, type[KernelError]] = {
    "caller": CallerError,
    "guest": GuestError,
    "host": HostError,
    "kernel": KernelFault,
}
