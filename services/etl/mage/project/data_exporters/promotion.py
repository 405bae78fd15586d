"""Promotion: registers the ensemble, and brings it into production only where it is better than what serves."""

from steps import step

if "data_exporter" not in globals():  # Mage brings its own
    from mage_ai.data_preparation.decorators import data_exporter


@data_exporter
def promotion(combined, *args, **kwargs):
    return step("promote", kwargs)
