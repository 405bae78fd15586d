"""Writes an environment's manifests as YAML: one file for each object, in the order in which they can be applied."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from infra.environment import EnvironmentFault
from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.record import Registered, record
from infra.kubernetes.wire import plain

MARK: Final = ".breakwater-render"
"""JSON: the environment and the files of a directory that we wrote, so that a second rendering replaces just those.

Without a suffix: `kubectl apply -f` must not take it for a manifest.
"""

KIND_ORDER: Final = (
    "Namespace",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Service",
    "PodDisruptionBudget",
    "StatefulSet",
    "Job",
    "Deployment",
    "HorizontalPodAutoscaler",
)
"""Who needs whom: rules before pods, what pods mount before them."""

FIRST_KEYS: Final = ("apiVersion", "kind", "name", "metadata", "type")

Manifest = dict[str, Any]


def manifests(plan: KubernetesPlan) -> list[Manifest]:
    """Every object as Kubernetes takes it, ordered by kind and name; the same for the same topology."""
    objects = [_manifest(found) for found in record(plan) if found.is_object]
    return sorted(objects, key=lambda made: (KIND_ORDER.index(made["kind"]), made["metadata"]["name"]))


def files(made: list[Manifest]) -> dict[str, str]:
    """Content by file name; names sort into the order of application, and a new object renames no other."""
    named: dict[str, str] = {}
    for manifest in made:
        number = KIND_ORDER.index(manifest["kind"])
        kind = re.sub(r"(?<!^)(?=[A-Z])", "-", manifest["kind"]).lower()
        named[f"{number:02d}-{kind}-{manifest['metadata']['name']}.yaml"] = _yaml(manifest)
    return named


def write(environment: str, content: dict[str, str], out: Path) -> None:
    """Put the files into `out`, which is new, empty, or an earlier rendering of the same environment.

    EnvironmentFault, with nothing written, when it is something else or cannot be written.
    """
    before = _own_files(environment, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark = out / MARK
        mark.write_text(json.dumps({"environment": environment, "files": sorted({*before, *content})}) + "\n")
        for name, text in content.items():
            (out / name).write_text(text)
        for name in before - content.keys():
            (out / name).unlink(missing_ok=True)
        mark.write_text(json.dumps({"environment": environment, "files": sorted(content)}, indent=2) + "\n")
    except OSError as error:
        raise EnvironmentFault(
            f"{error.filename or out} cannot be written: {error.strerror}; choose another directory with --out"
        ) from error


def _own_files(environment: str, out: Path) -> set[str]:
    try:
        present = {path.name for path in out.iterdir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise EnvironmentFault(
            f"{out} cannot be used: {error.strerror}; choose another directory with --out"
        ) from error
    if not present:
        return set()
    try:
        mark = json.loads((out / MARK).read_text())
        owner, names = str(mark["environment"]), {Path(str(name)).name for name in mark["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentFault(
            f"{out} is not empty and was not written by `breakwater render`; choose another directory with --out"
        ) from error
    if owner != environment:
        raise EnvironmentFault(f"{out} holds the manifests of {owner}; choose another directory for {environment}")
    strangers = sorted(present - names - {MARK})
    if strangers:
        raise EnvironmentFault(
            f"{out} holds {strangers[0]}, which `breakwater render` did not write and `kubectl apply -f` would take; "
            "move it away, or choose another directory with --out"
        )
    return names


def _manifest(found: Registered) -> Manifest:
    cleaned = plain(found.inputs)
    if not isinstance(cleaned, dict) or "kind" not in cleaned:
        raise AssertionError(f"{found.type} {found.name} was registered without a kind")
    return cleaned


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a configuration can be read and compared."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(manifest: Manifest) -> str:
    return yaml.dump(_ordered(manifest), Dumper=_Dumper, sort_keys=False, width=120)


def _ordered(value: Any) -> Any:
    """Keys as people look for them, then by alphabet: the order of the wire is nobody's."""
    match value:
        case dict():
            first = [key for key in FIRST_KEYS if key in value]
            return {key: _ordered(value[key]) for key in (*first, *sorted(value.keys() - set(first)))}
        case list():
            return [_ordered(item) for item in value]
    return value
