"""Load the flights of 2013: `python -m services.etl CONFIG`; running it again changes nothing."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient, EtcdError
from services.etl.errors import EtlError
from services.etl.flights import LoadProgress, load_flights
from services.featurestore.errors import FeatureStoreError
from services.featurestore.slots import read_slot_map


class LoadConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    etcd: tuple[str, ...] = Field(min_length=1)
    shards: tuple[ShardEndpoints, ...] = Field(min_length=1)


def load(config: LoadConfig) -> str:
    with contextlib.closing(EtcdClient(config.etcd)) as etcd:
        slot_map = read_slot_map(etcd, config.environment)
    report = load_flights(config.shards, slot_map, progress=_tell)
    return f"{report.rows:,} feature vectors of {report.entities:,} scheduled flights"


def _tell(step: LoadProgress) -> None:
    sys.stderr.write(f"load: {step.label}: {step.rows:,} of {step.total_rows:,}\n")


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                sys.stderr.write(f"load: {load(LoadConfig.model_validate_json(Path(path).read_bytes()))}\n")
            except (EtlError, FeatureStoreError, EtcdError, OSError, ValidationError) as error:
                sys.stderr.write(f"load: {error}\n")
                return 1
            return 0
        case _:
            sys.stderr.write("usage: python -m services.etl CONFIG\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
