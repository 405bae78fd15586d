"""MLflow: a pyfunc model from code, as its documentation shows. Runs in MLflow's environment.

`python mlflow_model.py DIRECTORY` saves it; `mlflow models serve` loads the saved copy of this file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

HERE = Path(__file__).resolve()


class FlightDelay(PythonModel):  # type: ignore[misc]
    """An array of rows in, a probability each out."""

    def load_context(self, context: Any) -> None:
        from scorer import Scorer  # noqa: PLC0415 - the JVM belongs to the serving process, not to the one that saves

        self._scorer = Scorer()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return np.array([self._scorer.score(row) for row in model_input])


set_model(FlightDelay())

if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        sys.argv[1], python_model=str(HERE), code_paths=[str(HERE.with_name("scorer.py"))], pip_requirements=["jpype1"]
    )
