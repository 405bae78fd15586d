"""What an API replica has counted since its start, from its own /metrics."""

from __future__ import annotations

from typing import Final

import urllib3
from prometheus_client.parser import text_string_to_metric_families

ANSWER_S: Final = 2.0
COMPUTATIONS: Final = "breakwater_api_computations_total"
MEMORY: Final = "process_resident_memory_bytes"


def counted(url: str) -> dict[str, float] | None:
    """`computations` (rows given to the model, for any reason) and `memory_bytes` (resident); None: no answer."""
    try:
        answer = urllib3.request("GET", f"{url}/metrics", timeout=ANSWER_S, retries=False)
    except urllib3.exceptions.HTTPError:
        return None
    if answer.status != 200:  # noqa: PLR2004 - HTTP
        return None
    return parsed(answer.data.decode())


def parsed(text: str) -> dict[str, float] | None:
    """The same from the page's text; None when it lacks one of the two."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    computations = [sample.value for sample in samples if sample.name == COMPUTATIONS]
    memory = [sample.value for sample in samples if sample.name == MEMORY]
    if not computations or not memory:
        return None
    return {"computations": sum(computations), "memory_bytes": memory[0]}
