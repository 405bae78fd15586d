"""From published data to the feature store, and from the feature store to training data."""
