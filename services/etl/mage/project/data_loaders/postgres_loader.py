"""PostgresLoader: one cut of every shard's closed batches, which all that follows reads."""

from steps import step

if "data_loader" not in globals():  # Mage brings its own
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
def postgres_loader(*args, **kwargs):
    return step("load", kwargs)
