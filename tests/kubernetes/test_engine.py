"""The Pulumi engine itself: up, up again without changes, an update, destroy, and what it says of bad input.

Runs where a `pulumi` executable and its Kubernetes provider are; elsewhere the result says `pulumi engine: not run`,
which the gate takes for unknown. The mocks of tests/unit say nothing of the engine: this alone does.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pulumi import automation

from infra.kubernetes.names import NAMESPACE, STACK_SECRETS
from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.stack_secrets import ensure
from infra.topology import load
from tests.kubernetes.platform import KubectlFailed, Platform, ready

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STACK = "engine"
PROVIDER = "pulumi-resource-kubernetes"


def missing() -> list[str]:
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    found = [] if shutil.which("pulumi") else ["no pulumi on PATH"]
    if shutil.which(PROVIDER) is None and not list(home.glob("plugins/resource-kubernetes-v*")):
        found.append(f"no {PROVIDER} on PATH or among {home}/plugins")
    return found


# Not a fixture: it must be known before a cluster is brought up for nothing.
pytestmark = pytest.mark.skipif(bool(missing()), reason=f"pulumi engine: not run: {', '.join(missing())}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own: the program reads the stack's file beside itself, and the tests change that file."""
    project = tmp_path_factory.mktemp("project")
    for package in ("infra", "services"):
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__", "venv"))
    shutil.copy(ROOT / "Pulumi.yaml", project)
    shutil.copy(HERE / "Pulumi.cluster.yaml", project / f"Pulumi.{STACK}.yaml")
    (project / ".venv").symlink_to((ROOT / ".venv").resolve())
    return project


@pytest.fixture(scope="module")
def empty(project: Path, tmp_path_factory: pytest.TempPathFactory) -> automation.Stack:
    """The stack without its secrets, its state in a directory."""
    (state := tmp_path_factory.mktemp("state")).mkdir(exist_ok=True)
    variables = {
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": secrets.token_urlsafe(24),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    options = automation.LocalWorkspaceOptions(env_vars=variables, secrets_provider="passphrase")
    return automation.create_or_select_stack(STACK, work_dir=str(project), opts=options)


@pytest.fixture(scope="module")
def platform(project: Path, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The stack's platform as kubectl sees it."""
    made = Platform(KubernetesPlan(load(project, STACK)), tmp_path_factory.mktemp("secrets") / "stack")
    ensure(made.plan, made.secrets)
    return made


@pytest.fixture(scope="module")
def stack(empty: automation.Stack, platform: Platform) -> Iterator[automation.Stack]:
    """With its secrets; whatever the tests leave is destroyed."""
    values = {name: (platform.secrets / name).read_text() for name in STACK_SECRETS}
    empty.set_all_config({f"{NAMESPACE}:{k}": automation.ConfigValue(v, secret=True) for k, v in values.items()})
    yield empty
    empty.destroy()
    empty.workspace.remove_stack(STACK)


def test_a_stack_without_secrets_makes_nothing(empty: automation.Stack, platform: Platform) -> None:
    with pytest.raises(automation.CommandError, match=r"lacks \d+ of its \d+ secrets"):
        empty.up()
    assert not _exists(platform)


def test_a_namespace_of_others_is_refused_and_the_next_up_goes_on(stack: automation.Stack, platform: Platform) -> None:
    platform.kubectl("create", "namespace", platform.plan.namespace)
    with pytest.raises(automation.CommandError, match="belongs to somebody else"):
        stack.up()
    platform.kubectl("delete", "namespace", platform.plan.namespace)
    assert stack.up().summary.result == "succeeded"
    assert [pod["metadata"]["name"] for pod in platform.pods("postgres") if not ready(pod)] == []


def test_a_second_up_changes_nothing(stack: automation.Stack) -> None:
    assert set(_changes(stack.up())) == {"same"}


def test_an_update_changes_what_it_names(stack: automation.Stack, project: Path, platform: Platform) -> None:
    file = project / f"Pulumi.{STACK}.yaml"
    document = yaml.safe_load(file.read_text())
    document["config"]["breakwater:api"]["replicas"] += 1
    file.write_text(yaml.safe_dump(document))
    before = platform.identities()
    assert _changes(stack.up())["update"] == 1
    after = platform.identities()
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed <= {"horizontalpodautoscalers/api", "deployments/api"}
    assert before.keys() <= after.keys()


def test_destroy_leaves_nothing(stack: automation.Stack, platform: Platform) -> None:
    stack.destroy()
    assert not _exists(platform)


def _changes(done: automation.UpResult) -> dict[str, int]:
    return {str(kind): count for kind, count in (done.summary.resource_changes or {}).items()}


def _exists(platform: Platform) -> bool:
    try:
        platform.kubectl("get", "namespace", platform.plan.namespace)
    except KubectlFailed:
        return False
    return True
