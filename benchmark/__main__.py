"""`python -m attribug`."""

from attribug.cli import main

main()
