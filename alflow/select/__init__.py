"""What to label next, and when to stop: arrays in, choices with reasons out.

A batch is the most uncertain candidates, thinned by diversity, with a random part that stays unbiased: it tests the
committee, calibrates it and decides when a campaign may end.
"""

from alflow.select._batch import Choice, Selection, SelectionSettings, Stream, select_batch
from alflow.select._lcmd import lcmd, standardise
from alflow.select._looks import clean_labels_needed, look_level, upper_bound
from alflow.select._stopping import (
    Budget,
    StopDecision,
    StoppingInput,
    StoppingSettings,
    StopRule,
    decide_stop,
    earliest_stop,
    stream_failures,
    stream_horizon,
)

__all__ = [
    "Budget",
    "Choice",
    "Selection",
    "SelectionSettings",
    "StopDecision",
    "StopRule",
    "StoppingInput",
    "StoppingSettings",
    "Stream",
    "clean_labels_needed",
    "decide_stop",
    "earliest_stop",
    "lcmd",
    "look_level",
    "select_batch",
    "standardise",
    "stream_failures",
    "stream_horizon",
    "upper_bound",
]
