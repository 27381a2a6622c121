"""``python -m pipeline`` is the command ``lineguard``."""

from pipeline.cli.main import main

main()
