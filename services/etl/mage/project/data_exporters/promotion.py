"""Promotion: registers the ensemble, and brings it into production only where it is better than what serves."""

from mage_ai.data_preparation.decorators import data_exporter
from steps import step


@data_exporter
def promotion(combined, *args, **kwargs):
    return step("promote", kwargs)
