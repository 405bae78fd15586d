"""What an API replica says of itself on its /metrics: what it has counted, and which model it serves."""

from __future__ import annotations

from typing import Final

import urllib3
from prometheus_client.parser import text_string_to_metric_families

ANSWER_S: Final = 2.0
COMPUTATIONS: Final = "breakwater_api_computations_total"
EXPIRIES: Final = "breakwater_api_cache_expiries_total"
MEMORY: Final = "process_resident_memory_bytes"
GENERATION: Final = "breakwater_api_model_generation"
REHEARSALS: Final = "breakwater_api_model_rehearsals"


def counted(url: str) -> dict[str, float] | None:
    """What the replica counted so far, as `parsed` gives it; None: no answer."""
    try:
        answer = urllib3.request("GET", f"{url}/metrics", timeout=ANSWER_S, retries=False)
    except urllib3.exceptions.HTTPError:
        return None
    if answer.status != 200:  # noqa: PLR2004 - HTTP
        return None
    return parsed(answer.data.decode())


def parsed(text: str) -> dict[str, float] | None:
    """From the page's text; None when it lacks one of them.

    `computations` are rows given to the model, for any reason, `hard_expiries` keys that were gone from the cache when
    this replica took their computation on, `memory_bytes` is resident.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    computations = [sample.value for sample in samples if sample.name == COMPUTATIONS]
    hard = [sample.value for sample in samples if sample.name == EXPIRIES and sample.labels.get("kind") == "hard"]
    memory = [sample.value for sample in samples if sample.name == MEMORY]
    if not computations or not hard or not memory:
        return None
    return {"computations": sum(computations), "hard_expiries": hard[0], "memory_bytes": memory[0]}


def serving(text: str) -> tuple[int, int] | None:
    """Generation of the model that serves, and the calls that it had answered before; None: the page lacks them."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {sample.name: round(sample.value) for sample in samples if sample.name in {GENERATION, REHEARSALS}}
    return (found[GENERATION], found[REHEARSALS]) if len(found) == 2 else None  # noqa: PLR2004 - the two
