"""The campaign file: one YAML file per campaign, composed of the settings models that the rooms below define.

Every mistake in it is one message with file, line, key, the nearest valid key and what to do.
``python -m alflow.config`` prints the reference page that is generated from the models.
"""

from alflow.config._campaign import (
    CONFIG_VERSION,
    CampaignConfig,
    DuplicateSettings,
    ExplorerSettings,
    TheorySettings,
)
from alflow.config._find import find_campaign_file
from alflow.config._ledger_url import mask_url, resolve_url
from alflow.config._load import LoadedCampaign, load_campaign
from alflow.config._reference import reference_markdown
from alflow.config._template import init_template

__all__ = [
    "CONFIG_VERSION",
    "CampaignConfig",
    "DuplicateSettings",
    "ExplorerSettings",
    "LoadedCampaign",
    "TheorySettings",
    "find_campaign_file",
    "init_template",
    "load_campaign",
    "mask_url",
    "reference_markdown",
    "resolve_url",
]
