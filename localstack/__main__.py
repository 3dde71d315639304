"""``python -m localstack`` is ``daarion``."""

from localstack.cli import main

main()
