"""One split: trained on everything before its month, measured on its month, as one job of the H2O cloud."""

from steps import step

if "custom" not in globals():  # Mage brings its own
    from mage_ai.data_preparation.decorators import custom


@custom
def train_split(month, *args, **kwargs):
    return step("train", kwargs, month=month)
