"""Ensemble: combines the splits' models and measures the whole on a month that nothing in it has seen."""

from mage_ai.data_preparation.decorators import transformer
from steps import step


@transformer
def ensemble(trained, *args, **kwargs):
    return step("combine", kwargs)
