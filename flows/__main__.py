"""``python -m flows`` is the ``imagegate`` command."""

from flows.cli import main

main()
