"""FeatureTransformer: every row against the contract that the API serves; what breaks it is kept with its reason."""

from steps import step

if "transformer" not in globals():  # Mage brings its own
    from mage_ai.data_preparation.decorators import transformer


@transformer
def feature_transformer(cut, *args, **kwargs):
    return step("transform", kwargs)
