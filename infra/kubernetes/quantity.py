"""Quantities as Kubernetes writes them: 500m, 1536Mi, 2, 1e3. A value has many spellings, the server picks its own.

The standard library alone: the policy pack has nothing else.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

UNITS: Final = {
    **{unit: Decimal(1000) ** -power for power, unit in enumerate("mun", start=1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("", *"kMGTPE"))},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
QUANTITY: Final = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE](-?\d+)|([a-zA-Z]*))")


def amount(quantity: object) -> Decimal:
    """Its value in units (cores, bytes, pieces). ValueError when it is none."""
    found = QUANTITY.fullmatch(str(quantity))
    if found is None or (found[3] or "") not in UNITS:
        raise ValueError(f"{quantity!r} is no quantity of Kubernetes'")
    return Decimal(found[1]) * (Decimal(10) ** int(found[2]) if found[2] else UNITS[found[3] or ""])
