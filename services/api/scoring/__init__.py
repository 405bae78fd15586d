"""Scoring inside the process: the JVM with H2O's genmodel runtime, one model, and batches that never block the loop."""
