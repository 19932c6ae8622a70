"""Print the reference page of the settings: ``python -m alflow.config > docs/configuration.md``."""

import sys

from alflow.config import reference_markdown

sys.stdout.write(reference_markdown())
