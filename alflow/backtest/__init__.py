"""Replays a pool of known labels and counts how many of them the selection would have saved against random choice.

What decides is the real thing (training, calibration, ``u``, selection, duplicates); the ledger and the queue, which
change nothing about the choice, are left out, so that many seeds can be replayed.
"""

from alflow.backtest._backtest import BacktestProgress, backtest
from alflow.backtest._pool import ReplayPool, prepare_pool
from alflow.backtest._result import BacktestResult, Curve, Point, Saving
from alflow.backtest._strategies import Strategy

__all__ = [
    "BacktestProgress",
    "BacktestResult",
    "Curve",
    "Point",
    "ReplayPool",
    "Saving",
    "Strategy",
    "backtest",
    "prepare_pool",
]
