"""H2O as a training service: its server process, the training job, and the runtime jar that scores without it."""
