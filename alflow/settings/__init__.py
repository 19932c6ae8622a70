"""Settings files: YAML into pydantic models, with errors that name file, line, key, the nearest valid key and a remedy.

The campaign file and the worker's file are read here and nowhere else, so that both fail the same way.
"""

from alflow.settings._load import Loaded, load_settings, parse_settings
from alflow.settings._models import kind_of, nested_models
from alflow.settings._problems import Problem, dotted, nearest, problems_of, raise_problems
from alflow.settings._yaml import Document, Place, parse_yaml

__all__ = [
    "Document",
    "Loaded",
    "Place",
    "Problem",
    "dotted",
    "kind_of",
    "load_settings",
    "nearest",
    "nested_models",
    "parse_settings",
    "parse_yaml",
    "problems_of",
    "raise_problems",
]
