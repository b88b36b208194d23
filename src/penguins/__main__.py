"""`python -m penguins` is the command `penguins`."""

from penguins.cli import run

if __name__ == "__main__":
    run()
