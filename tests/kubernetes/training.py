"""The steps of a walk-forward run inside the cluster, as Mage orders them: with its account and flows, h2o's image."""

from __future__ import annotations

import copy
from typing import Any, Final

from infra.kubernetes.plan import MODELS_DIR, PYTHON, KubernetesPlan
from tests.kubernetes.platform import COMPONENT, Manifest

NAME: Final = "train"
PROGRAM: Final = """
import json, sys
from datetime import datetime, timezone
from pathlib import Path
from services.contracts.shards import ShardEndpoints
from services.etl.run import Order, Run, RunConfig

job = json.loads(Path("/etc/breakwater/job.json").read_bytes())
shards = tuple(ShardEndpoints.model_validate(shard) for shard in job["shards"])
config = RunConfig(
    environment=job["environment"],
    member="train",
    etcd=tuple(job["etcd"]),
    shards=shards,
    registry=shards[0].model_copy(update={"dbname": "model_registry"}),
    artifacts=sys.argv[1],
    directory=Path("/tmp"),
)
order = Order(run=1, ordered_at=datetime.now(timezone.utc), seed=1)
for step in ("load", "transform", "split"):
    print(answer := Run(config, order).answer(step))
for month in json.loads(answer):
    print(month, Run(config, order.model_copy(update={"month": month})).answer("train"))
for step in ("combine", "promote"):
    print(Run(config, order).answer(step))
"""


def training_job(plan: KubernetesPlan, objects: list[Manifest]) -> Manifest:
    """The first load's Job with another program and image: it reads the same shards with the same secrets."""
    (load,) = [made for made in objects if made["kind"] == "Job" and made["metadata"]["name"] == "load"]
    job: Manifest = copy.deepcopy(load)
    template = job["spec"]["template"]
    pod: dict[str, Any] = template["spec"]
    job["metadata"]["name"] = NAME
    for labels in (job["metadata"]["labels"], template["metadata"]["labels"]):
        labels[COMPONENT] = "mage"
    pod["serviceAccountName"] = "mage"
    (container,) = pod["containers"]
    container |= {
        "name": NAME,
        "image": plan.settings.images.reference("h2o"),
        "command": [PYTHON, "-c", PROGRAM, plan.artifacts],
    }
    container["volumeMounts"].append({"name": "models", "mountPath": str(MODELS_DIR)})
    pod["volumes"].append({"name": "models", "persistentVolumeClaim": {"claimName": "models"}})
    return job
