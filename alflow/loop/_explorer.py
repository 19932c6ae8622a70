"""The foreign potentials that explore in the first rounds."""

from __future__ import annotations

from alflow.errors import ConfigError
from alflow.labelers import AseLabeler, AseSettings
from alflow.loop._context import CampaignContext
from alflow.potentials import CalculatorCommittee, Committee, ExploringCommittee, MaceSpec


def explorer_leads(ctx: CampaignContext, round_index: int) -> bool:
    """True in the rounds in which sources follow foreign potentials instead of the campaign's committee."""
    return round_index < ctx.config.explorer.rounds


def exploring_committee(ctx: CampaignContext) -> Committee:
    """Make the committee of the section ``explorer``: calculators of this machine, or the foundation model.

    Raises
    ------
    ConfigError
        if this machine's worker file does not describe a calculator
    PotentialError
        if mace-torch is missing
    CheckpointError
        if the foundation model cannot be used
    """
    settings, spec, targets = ctx.config.explorer, ctx.config.committee, ctx.config.targets
    if not settings.calculators:
        if not isinstance(spec, MaceSpec):
            raise ConfigError("explorer: name `calculators`, or give `committee` a foundation model")
        from alflow.potentials.mace import foundation_committee

        found = foundation_committee(spec, targets=targets, directory=ctx.directory)
        return ExploringCommittee(committee=found, targets=targets)
    elements = set(ctx.config.elements)
    members = []
    for name in settings.calculators:
        labeler = AseLabeler(AseSettings(calculator=name), worker=ctx.worker)
        known = labeler.capabilities.elements
        elements &= elements if known is None else known
        members.append(labeler.calculator())
    if not elements:
        raise ConfigError(f"explorer: the calculators {', '.join(settings.calculators)} share no element here")
    committee = CalculatorCommittee(members, sorted(elements), targets=targets)
    return ExploringCommittee(committee=committee, targets=targets)
