"""Starts a server with a defect patched in, for controls: `python -m infra.local.defective DEFECT MODULE`.

Services carry no switch for defects. What is patched is named here, next to what it breaks.
"""

from __future__ import annotations

import hashlib
import runpy
import sys
from collections.abc import Callable, Mapping
from typing import Final

EXIT_USAGE: Final = 2


def _golden_unchecked() -> None:
    """A candidate is taken without asking whether it predicts what its trainer predicted."""
    from services.api import proof  # noqa: PLC0415 - the defect's own service

    proof.check_golden = lambda model, golden: None


def _cache_of_any_model() -> None:
    """A score is cached by its row alone, so that the next model gives the answers of the one before."""
    from services.api import proof  # noqa: PLC0415

    def cache_key(model: proof.ActiveModel, row: tuple[float, ...]) -> bytes:
        return hashlib.blake2b(model.encoder.pack(row), digest_size=16).digest()

    setattr(proof.ActiveModel, "cache_key", cache_key)  # noqa: B010 - a method is replaced, which types forbid


DEFECTS: Final[Mapping[str, Callable[[], None]]] = {
    "golden-unchecked": _golden_unchecked,
    "cache-of-any-model": _cache_of_any_model,
}


def main(arguments: list[str]) -> int:
    match arguments:
        case [defect, module] if defect in DEFECTS:
            DEFECTS[defect]()
            sys.argv = [module]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return 0
        case _:
            sys.stderr.write(f"usage: python -m infra.local.defective DEFECT MODULE, of {', '.join(DEFECTS)}\n")
            return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
