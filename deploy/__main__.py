"""`python -m deploy` is `turncoat`."""

from deploy.cli.main import main

main()
