"""FeatureTransformer: every row against the contract that the API serves; what breaks it is kept with its reason."""

from mage_ai.data_preparation.decorators import transformer
from steps import step


@transformer
def feature_transformer(cut, *args, **kwargs):
    return step("transform", kwargs)
