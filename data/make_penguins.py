"""Write penguins.csv beside this script from the 344 birds of the `palmerpenguins` package.

Run it with `python data/make_penguins.py`; the package is a development dependency.
"""

from pathlib import Path

from palmerpenguins import load_penguins

# The lab's codes, which are not alphabetical.
SPECIES_CODES = {"Adelie": 0, "Gentoo": 1, "Chinstrap": 2}

COLUMNS = {
    "island": "Island",
    "bill_length_mm": "CulmenLength",
    "bill_depth_mm": "CulmenDepth",
    "flipper_length_mm": "FlipperLength",
    "body_mass_g": "BodyMass",
    "species": "Species",
}


def main() -> None:
    """Rename the columns to the lab's, put the species codes in place of the names, and write the file."""
    birds = load_penguins()[list(COLUMNS)].rename(columns=COLUMNS)
    birds["Species"] = birds["Species"].map(SPECIES_CODES)
    whole_numbers = {"FlipperLength": "Int64", "BodyMass": "Int64"}
    target = Path(__file__).parent / "penguins.csv"
    birds.astype(whole_numbers).to_csv(target, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
