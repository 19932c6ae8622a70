"""The directories of calculations that are over: kept, compressed, pruned or removed, as the worker's file says."""

from __future__ import annotations

import shutil
from pathlib import Path

from alflow.folder.outputs import bytes_in, compress, prune
from alflow.labelers import OutputSettings
from alflow.loop._reporter import Reporter

_GB = 1e9


def settle_outputs(directory: Path, outputs: OutputSettings, report: Reporter, *, labelled: bool) -> None:
    """Do with a directory what the worker's file says; its label or failure is stored already.

    Where that fails, as on a full disk, the directory stays as it is and the reporter is told.
    """
    policy = outputs.labelled if labelled else outputs.failed
    if policy == "keep" or not directory.is_dir():
        return
    try:
        if policy == "remove":
            shutil.rmtree(directory)
        elif policy == "prune" or bytes_in(directory) > outputs.compress_up_to_gb * _GB:
            prune(directory, above_mb=outputs.prune_above_mb)
        if policy == "compress":
            compress(directory)
    except OSError as error:
        report.note(f"{directory} stays as it is, for `outputs: {policy}` failed: {error}")
