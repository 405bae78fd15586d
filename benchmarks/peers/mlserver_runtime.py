"""MLServer: a custom runtime, as its documentation shows. Runs in MLServer's environment."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scorer import Scorer


class FlightDelay(MLModel):  # type: ignore[misc]
    """One tensor in, a row of 16 numbers or (batched) several; one probability each out."""

    async def load(self) -> bool:
        self._scorer = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        probabilities = np.array([[self._scorer.score(row)] for row in rows])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probability", probabilities)])
