"""Calculations in folders, for machines that reach no database: what a cluster's node needs, and nothing else.

Nothing here imports more than Python's standard library, so that ``alflow-label`` starts at once and runs where the
dependencies of alflow are not installed. The other side, which writes the folders and reads the results, is
:mod:`alflow.loop` with the labelers.

Layout of a folder, everything in it moved by renaming only::

    FOLDER/open/job-12/     complete and waiting: job.json, input.json, run-1/ with inputs and run.json
    FOLDER/taken/job-12@…/  renamed by the worker that computes it: worker.json says who, heartbeat when last alive
    FOLDER/done/job-12/     renamed back when the program has ended; result.json lists its files with their hashes
    FOLDER/bad/job-12/      what arrived incomplete: reason.json says what
    FOLDER/lost/job-12…/    what the server has put away: its worker was silent, its job is closed
"""
