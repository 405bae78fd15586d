"""Splits: January to February, January and February to March, ...; dynamic, so each becomes a run of `train_split`."""

from steps import step

if "transformer" not in globals():  # Mage brings its own
    from mage_ai.data_preparation.decorators import transformer


@transformer
def splits(features, *args, **kwargs):
    months = step("split", kwargs)
    return [months, [{"block_uuid": month} for month in months]]
