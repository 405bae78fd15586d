"""Trains a model inside the cluster, as Mage will: with its account and its flows, from the h2o image."""

from __future__ import annotations

import copy
from typing import Any, Final

from infra.kubernetes.plan import MODELS_DIR, PYTHON, KubernetesPlan
from tests.kubernetes.platform import COMPONENT, Manifest

NAME: Final = "train"
PROGRAM: Final = """
import contextlib, datetime, json, sys
from pathlib import Path
from services.contracts.flights import FlightFeatures
from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient
from services.etl.training import export_training_csv
from services.h2o.cluster import H2OCluster
from services.h2o.job import JobSpec, run
from services.registry.registry import ModelRegistry, Why
from services.registry.store import ArtifactStore

job = json.loads(Path("/etc/breakwater/job.json").read_bytes())
shards = [ShardEndpoints.model_validate(shard) for shard in job["shards"]]
scratch, why = Path("/tmp"), Why("tests", "the first model")
cut = export_training_csv(shards, scratch, datetime.date(2013, 10, 1))
with contextlib.closing(EtcdClient(tuple(job["etcd"]))) as etcd:
    spec = JobSpec(train_csv=cut.train_csv, test_csv=cut.test_csv, seed=1, version="1")
    model = run(spec, H2OCluster(etcd, job["environment"]), scratch / "jobs", tell=print)
    database = shards[0].model_copy(update={"dbname": "model_registry"})
    registry = ModelRegistry(database, etcd, job["environment"], ArtifactStore(sys.argv[1]))
    schema = json.dumps(FlightFeatures.model_json_schema(), sort_keys=True)
    registry.register(model.model_zip, model.card, model.golden, schema, why)
    registry.stage(model.card.name, "1", why)
    print(registry.promote(model.card.name, "1", why))
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
