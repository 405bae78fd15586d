"""What the sources say: blocking calls by ruff, and who imports the feature contract by the syntax trees."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from experiments.gate.facts import ContractUse, Known, Missing, SourceScan

RULES: Final = "ASYNC"
DELIBERATE: Final = "services/api/chaos.py:"
"""The hook by which S-04 blocks a loop: only where chaos is enabled, which a policy keeps out of production."""
CONTRACT: Final = "services.contracts.flights"
CONTRACT_CLASS: Final = "FlightFeatures"
PARTIES: Final = ("services.etl", "services.h2o", "services.api", "loadtests")
"""Who makes vectors, learns from them, serves them, and asks for them."""
COPIED_FIELDS: Final = 4
"""So many field names in common are no accident: the contract was declared again."""


def scan(project: Path) -> Known[SourceScan]:
    """Ruff's rules on blocking calls over all services; a `noqa` excuses nothing here."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", RULES]
    try:
        listed = subprocess.run(
            [*ruff, "--show-files", "services"], cwd=project, capture_output=True, text=True, check=True
        )
        found = subprocess.run(
            [*ruff, "--ignore-noqa", "--output-format", "json", "--exit-zero", "services"],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
        )
        breaches = json.loads(found.stdout)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return Missing(f"ruff did not scan the services: {' '.join(said.split())[:200]}")
    said = [_breach(entry, project) for entry in breaches]
    return SourceScan(
        files=sum(line.endswith(".py") for line in listed.stdout.splitlines()),
        breaches=tuple(breach for breach in said if not breach.startswith(DELIBERATE)),
        deliberate=tuple(breach for breach in said if breach.startswith(DELIBERATE)),
    )


def _breach(entry: dict[str, object], project: Path) -> str:
    location = entry.get("location")
    row = location.get("row") if isinstance(location, dict) else "?"
    path = Path(str(entry.get("filename")))
    shown = path.relative_to(project.resolve()) if path.is_relative_to(project.resolve()) else path
    return f"{shown}:{row} {entry.get('code')} {entry.get('message')}"


def contract_use(project: Path) -> Known[ContractUse]:
    """Which parties import the contract's module, and which classes elsewhere declare its fields again."""
    contract_path = project.joinpath(*CONTRACT.split(".")).with_suffix(".py")
    try:
        wanted = _fields_of(contract_path).get(CONTRACT_CLASS, set())
        reach = {party: any(CONTRACT in _imports(path) for path in _modules(project, party)) for party in PARTIES}
        copies = tuple(_copies(project, contract_path, wanted))
    except (OSError, SyntaxError) as error:
        return Missing(f"the sources cannot be read: {error}")
    return ContractUse(CONTRACT, len(wanted), reach, copies)


def _copies(project: Path, contract_path: Path, wanted: set[str]) -> Iterator[str]:
    for package in ("services", "loadtests"):
        for path in _modules(project, package):
            if path == contract_path:
                continue
            for name, declared in _fields_of(path).items():
                common = len(declared & wanted)
                if common >= COPIED_FIELDS:
                    module = ".".join(path.relative_to(project).with_suffix("").parts)
                    yield f"{module}.{name} ({common} fields)"


def _modules(project: Path, package: str) -> list[Path]:
    return sorted(project.joinpath(*package.split(".")).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def _fields_of(path: Path) -> dict[str, set[str]]:
    """Annotated names of each class of a file."""
    return {
        node.name: {
            entry.target.id
            for entry in node.body
            if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name)
        }
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
    }
