"""`python -m tvmtiny`: the same as the `tvmtiny` command."""

from tvmtiny.cli import main

main()
