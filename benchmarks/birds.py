"""Make any number of birds: the real ones resampled with noise, seeded, as CSV and as Parquet."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

REAL_BIRDS = Path(__file__).parent.parent / "data" / "penguins.csv"
# Standard deviation of the noise, in each column's unit: about a tenth of the spread within a species.
NOISE = {"CulmenLength": 0.3, "CulmenDepth": 0.1, "FlipperLength": 0.6, "BodyMass": 40.0}
CHUNK_ROWS = 500_000


def make_birds(rows: int, folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write `rows` birds to `folder` and return the CSV file and the Parquet file; files already there are kept."""
    csv, parquet = folder / f"birds-{rows}.csv", folder / f"birds-{rows}.parquet"
    if csv.exists() and parquet.exists():
        return csv, parquet
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    real = pd.read_csv(REAL_BIRDS).dropna()
    schema = pa.Table.from_pandas(_resample(real, 1, generator), preserve_index=False).schema
    with pa.csv.CSVWriter(csv, schema) as csv_file, pa.parquet.ParquetWriter(parquet, schema) as parquet_file:
        for start in range(0, rows, CHUNK_ROWS):
            birds = _resample(real, min(CHUNK_ROWS, rows - start), generator)
            table = pa.Table.from_pandas(birds, schema, preserve_index=False)
            csv_file.write(table)
            parquet_file.write(table)
    return csv, parquet


def _resample(real: pd.DataFrame, rows: int, generator: np.random.Generator) -> pd.DataFrame:
    birds = real.iloc[generator.integers(len(real), size=rows)].reset_index(drop=True)
    for column, deviation in NOISE.items():
        birds[column] = (birds[column] + generator.normal(0, deviation, rows)).round(2)
    return birds
