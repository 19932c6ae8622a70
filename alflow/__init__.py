"""alflow: active learning for materials discovery with as few expensive calculations as possible."""

__version__ = "0.1.0"
