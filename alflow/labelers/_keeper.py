"""Moved to :mod:`alflow.folder.keeper`."""

from alflow.folder.keeper import ENDED, RUN, RUNNING

__all__ = ["ENDED", "RUN", "RUNNING"]
