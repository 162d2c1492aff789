"""`python -m actorrt` is the `actorrt` command."""

from actorrt.cli import main

main()
