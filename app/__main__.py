"""`python -m app` is `dictsplat`, also where the program of that name is not on the path."""

from app.cli import main

main()
