"""`python -m is_db_bootstrap`."""

from is_db_bootstrap.cli import main

main()
