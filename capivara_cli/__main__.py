"""`python -m capivara_cli` is `capivara`."""

from capivara_cli.commands import main

main()
