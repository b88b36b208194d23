"""`python -m penguins` is the command `penguins`."""

from penguins.cli import main

if __name__ == "__main__":
    main()
