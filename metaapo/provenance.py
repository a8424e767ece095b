"""What a result was made of: the code behind a module, the commit, the versions of packages.

`code_of` follows imports, so no list of source files is kept by hand: rules and stamps name the module that a command
runs and get everything below it. `code_hash` reads what Python would run, so that an edited comment or docstring makes
nothing out of date.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metaapo import PROJECT

# Numbers depend on these.
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "numpy",
    "safetensors",
    "snakemake",
    "peft",
    "vllm",
)
# The configuration enters stamps as values: a new key, or another default, concerns only the results that it changes.
SETTINGS = frozenset({"metaapo.config", "metaapo.experiment"})


def code_of(*modules: str) -> list[Path]:
    """The source files that modules run, found by following their imports, late ones included.

    Imports under `if TYPE_CHECKING:`, of other projects, and of the configuration's schema (SETTINGS) are not followed.

    Args:
        modules: importable names, such as "metaapo.train"; modules that are imported by name at run time have to be
            given too.

    Returns:
        Paths relative to the project, sorted.

    Raises:
        ModuleNotFoundError: a name is no module of this project.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name in SETTINGS:
            continue
        path = _source(name)
        if path is None:
            raise ModuleNotFoundError(f"{name}: no module of this project")
        found[name] = path
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []  # importing a module runs its packages' __init__
        waiting += imports_of(name)
    return sorted(path.relative_to(PROJECT) for path in found.values())


def code_hash(*modules: str) -> str:
    """SHA-256 of what `code_of` finds, without comments, docstrings and formatting."""
    digest = hashlib.sha256()
    for path in code_of(*modules):
        digest.update(f"{path}\n{_statements(PROJECT / path)}\n".encode())
    return digest.hexdigest()


def git_commit() -> str:
    """The current commit, with "-dirty" where files differ from it; "unknown" outside git."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that numbers depend on."""
    found = {name: _version(name) for name in PACKAGES}
    return {name: number for name, number in found.items() if number} | {"python": sys.version.split()[0]}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, str | int]:
    """What numbers are computed on: system, processor, cores; where torch is loaded, its instruction set and GPU."""
    found: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }
    torch = sys.modules.get("torch")  # loaded in training processes; others should not wait for it
    if torch is not None:
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    """The processor's name as Linux gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


@lru_cache(maxsize=1024)
def _source(name: str) -> Path | None:
    """The file of a module of this project; None where the name is none."""
    base = PROJECT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@lru_cache(maxsize=1024)
def imports_of(name: str, late: bool = True) -> tuple[str, ...]:
    """The modules of this project that a module imports.

    Args:
        name: an importable name of this project.
        late: False leaves out what functions import when they are called.
    """
    path = _source(name)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: dict[str, None] = {}
    for node in _running(ast.parse(path.read_text(encoding="utf-8")), late):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name for alias in node.names if _source(alias.name))
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            for alias in node.names:  # `from package import thing`: the thing is a module, or a name in the package
                inner = f"{origin}.{alias.name}"
                found |= dict.fromkeys(module for module in (inner if _source(inner) else origin,) if _source(module))
    return tuple(found)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _running(tree: ast.AST, late: bool) -> Iterator[ast.AST]:
    """All nodes below one, without the bodies of `if TYPE_CHECKING:` and, unless `late`, of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if not late and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from _running(node, late)


@lru_cache(maxsize=1024)
def _statements(path: Path) -> str:
    """A file's code in one normal form, without what a method or a benchmark declares.

    A method's declaration is for the report, not for training. What a stage reads of a benchmark's declaration is part
    of that stage's settings (`eval.checkpoints`).
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not _is_declaration(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _is_declaration(node: ast.stmt) -> bool:
    named = [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
    return named in (["DECLARATION"], ["BENCHMARK"])
