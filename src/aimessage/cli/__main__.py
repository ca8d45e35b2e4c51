"""`python -m aimessage.cli`: the command, for whoever has this interpreter and not its path."""

from aimessage.cli.door import main

if __name__ == "__main__":
    main()
