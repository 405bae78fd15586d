"""What goes wrong when a run is planned, stored or judged; each message says what happened, where and what to do."""

from __future__ import annotations

from pydantic import ValidationError


class ExperimentError(Exception):
    """Base of everything that experiments raise on purpose; the command line answers it with exit code 3."""


def fields(error: ValidationError) -> str:
    """Every wrong field and why, on one line."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False)
    )


class RunFileError(ExperimentError):
    """A file of a run directory is missing or is not what it should be."""


class ScenarioError(ExperimentError):
    """A scenario file does not say what a scenario must say."""
