"""PostgresLoader: one cut of every shard's closed batches, which all that follows reads."""

from mage_ai.data_preparation.decorators import data_loader
from steps import step


@data_loader
def postgres_loader(*args, **kwargs):
    return step("load", kwargs)
