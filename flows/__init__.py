"""Prefect flows over the loop: thin wrappers, all state stays in the ledger.

Entry points use the module form ``alflow.flows.campaign.campaign``; nobody writes ``import flows``.
"""
