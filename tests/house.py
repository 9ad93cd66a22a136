"""The house's rules as functions over a source tree: each returns the places that break it, as `file:line what`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = {
    "kernel": "agent_kernel",
    "mcp_server": "agent_kernel_mcp",
    "conformance": "agent_kernel_conformance",
    "bench": "agent_kernel_bench",
}

BELOW_PRIMITIVES = {"agent_kernel.base", "agent_kernel.cell"}
PRIMITIVES = {f"agent_kernel.{name}" for name in ("sandbox", "journal", "memory", "skills")}
MAY_IMPORT: dict[str, set[str]] = {
    "agent_kernel.cell": {"agent_kernel.cell"},
    "agent_kernel.base": BELOW_PRIMITIVES,
    "agent_kernel.sandbox": BELOW_PRIMITIVES,
    "agent_kernel.journal": BELOW_PRIMITIVES,
    "agent_kernel.memory": BELOW_PRIMITIVES,
    "agent_kernel.skills": BELOW_PRIMITIVES,
    "agent_kernel.scheduler": {"agent_kernel.base"},
    "agent_kernel.flights": BELOW_PRIMITIVES | PRIMITIVES,
    "agent_kernel.programs": BELOW_PRIMITIVES | PRIMITIVES | {"agent_kernel.flights"},
    "agent_kernel.calls": BELOW_PRIMITIVES | PRIMITIVES | {"agent_kernel.flights", "agent_kernel.programs"},
    "agent_kernel.orchestration": BELOW_PRIMITIVES
    | PRIMITIVES
    | {"agent_kernel.scheduler", "agent_kernel.flights", "agent_kernel.programs", "agent_kernel.calls"},
    "agent_kernel": {"agent_kernel"},
    "agent_kernel_mcp": {"agent_kernel", "agent_kernel_mcp"},
    "agent_kernel_bench": {"agent_kernel", "agent_kernel_bench"},
    "agent_kernel_conformance": {"agent_kernel_conformance"},
}
"""Room -> the rooms whose values it may use. The most specific name counts."""

THIRD_PARTY: dict[str, set[str]] = {
    "agent_kernel": {"aiosqlite", "orjson", "uvloop"},
    "agent_kernel.base.filter": {"pyseccomp"},
    "agent_kernel.base.skillmd": {"yaml"},
    "agent_kernel.cell": set(),
    "agent_kernel_mcp": {"mcp", "mcp_types", "pydantic", "anyio", "uvloop", "orjson", "rich", "yaml", "jsonschema"},
    "agent_kernel_bench": {"aiosqlite", "orjson", "uvloop", "rich", "mcp", "mcp_types", "pydantic"},
    "agent_kernel_conformance": {"mcp", "mcp_types", "anyio"},
}


def modules(root: Path) -> Iterator[tuple[Path, str, ast.Module]]:
    for folder, name in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            if "builtin_skills" in path.parts or "data" in path.parts:
                continue  # skills' scripts are documents of ours, not rooms of the house
            parts = [name, *path.relative_to(root / folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            yield path, ".".join(parts), ast.parse(path.read_text(encoding="utf8"))


def imports(module: str, is_package: bool, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, node.module or ""
                continue
            up = module.split(".") if is_package else module.split(".")[:-1]
            base = up[: len(up) - node.level + 1]
            if node.module:
                yield node.lineno, ".".join([*base, node.module])
            else:
                for alias in node.names:
                    yield node.lineno, ".".join([*base, alias.name])


def most_specific(table: dict[str, set[str]], module: str) -> set[str] | None:
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        found = table.get(".".join(parts[:size]))
        if found is not None:
            return found
    return None


def within(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def forbidden_imports(root: Path) -> list[str]:
    places = []
    for path, module, tree in modules(root):
        rooms = most_specific(MAY_IMPORT, module) or set()
        outside = most_specific(THIRD_PARTY, module) or set()
        for line, target in imports(module, path.name == "__init__.py", tree):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names or target == "__future__":
                continue
            ours = top in FOLDERS.values()
            fine = (within(target, rooms) or target == module) if ours else top in outside
            if not fine:
                places.append(f"{path.relative_to(root)}:{line} {module} imports {target}")
    return places


def files_without_theory(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for path, _, tree in modules(root)
        if tree.body and len((ast.get_docstring(tree) or "").strip()) < 40
    ]


def too_long(root: Path, *, lines_max: int = 700, function_max: int = 60) -> list[str]:
    places = []
    for path, _, tree in modules(root):
        lines = len(path.read_text(encoding="utf8").splitlines())
        if lines > lines_max:
            places.append(f"{path.relative_to(root)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > function_max:
                    places.append(f"{path.relative_to(root)}:{node.lineno} {node.name}: {size} lines")
    return places
