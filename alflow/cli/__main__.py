"""``python -m alflow.cli``: the command line without its console script."""

from alflow.cli import main

if __name__ == "__main__":
    main()
