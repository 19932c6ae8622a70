"""Prefect flows over the loop: thin wrappers, all state stays in the ledger.

Entry points use the module form ``alflow.flows.campaign.campaign``; nobody writes ``import flows``.
"""

import os

# Nothing that alflow starts reports to anybody. A variable that is set already is left as it is.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
