"""Ensemble: combines the splits' models and measures the whole on a month that nothing in it has seen."""

from steps import step

if "transformer" not in globals():  # Mage brings its own
    from mage_ai.data_preparation.decorators import transformer


@transformer
def ensemble(trained, *args, **kwargs):
    return step("combine", kwargs)
