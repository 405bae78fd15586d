"""What services, infrastructure, load and experiments agree on: names, shapes and units. No I/O but one appender."""
