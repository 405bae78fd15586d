"""The prediction API: one process per replica that scores in-process, caches in Redis and writes through to shards."""
