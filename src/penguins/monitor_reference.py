"""What a monitor in Azure Machine Learning compares with: rows that `predict` has scored, typed as what is collected.

Azure's monitor compares columns of one name and one type, and leaves out the others without a word. What a deployment
collects has doubles for numbers and text for categories and classes; a CSV of whole numbers would be integers to Azure.
So the reference is Parquet, whose columns have types.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import arm
from penguins.errors import DataError
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    import pyarrow as pa
    from azure.ai.ml import MLClient

NAME = "penguins-reference"

FILE = "reference.parquet"

MLTABLE = f"""\
type: mltable
paths:
  - file: ./{FILE}
transformations:
  - read_parquet
"""
"""How Azure reads the reference."""

ASSET = re.compile(r"azureml:([^:@/]+):([^:@/]+)")
"""How data of a workspace is named."""

WRITE_IT = "write one with `penguins predict --data <the training data> --output reference.parquet`"


def register(client: MLClient, source: str, spec: Spec = PENGUINS) -> str:
    """Keep a reference in the workspace, made of a Parquet file or folder here, and return `azureml:<name>:<version>`.

    The file is one that `predict` has written. The reference has the rows that were scored, with the feature columns
    (double or text) and the class under the name that an answer gives it (text). `source` may also name a reference
    that is in the workspace already.
    Raises DataError when it is neither, ServerError when the workspace refuses.
    """
    if named := ASSET.fullmatch(source):
        _require_ours(client, source, *named.groups())
        return source
    table = _scored(source, spec)
    with tempfile.TemporaryDirectory() as folder:
        return _upload(client, table, Path(folder))


def _scored(source: str, spec: Spec) -> pa.Table:
    """The scored rows of a Parquet file or folder, with the columns and the types of a reference."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    if not Path(source).exists():
        raise DataError(f"There is no {source} here: {WRITE_IT}.")
    try:
        data = ds.dataset(source, format="parquet")
        # `predict` gives the class the first name where the data has the label in it.
        names = (f"predicted_{spec.name_column}", spec.name_column)
        classes = next((name for name in names if name in data.schema.names), spec.name_column)
        wanted = [*spec.features, classes]
        if missing := [name for name in wanted if name not in data.schema.names]:
            raise DataError(f"{source} lacks {', '.join(missing)}: {WRITE_IT}.")
        rows = data.to_table(columns=wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{source} is no Parquet file or folder: {WRITE_IT}.") from error
    types = {name: pa.string() for name in spec.categorical} | {one.name: pa.float64() for one in spec.numeric}
    try:
        columns = {name: rows[name].cast(type_) for name, type_ in types.items()}
        columns[spec.name_column] = rows[classes].cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{source} has a column of the wrong type ({error}): {WRITE_IT}.") from error
    table = pa.table(columns).filter(pc.is_valid(rows[classes]))
    if table.num_rows == 0:
        raise DataError(f"{source} has no row with an answer: {WRITE_IT}.")
    return table


def _upload(client: MLClient, table: pa.Table, folder: Path) -> str:
    import pyarrow.parquet as pq
    from azure.ai.ml.entities import Data
    from azure.core.exceptions import ResourceNotFoundError

    pq.write_table(table, folder / FILE)
    (folder / "MLTable").write_text(MLTABLE)
    version = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()[:12]
    address = f"azureml:{NAME}:{version}"
    with arm.told(address):
        try:
            client.data.get(NAME, version=version)
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            made = Data(name=NAME, version=version, type="mltable", path=str(folder), tags=dict(arm.MADE_BY))
            client.data.create_or_update(made)
    return address


def _require_ours(client: MLClient, source: str, name: str, version: str) -> None:
    with arm.told(source):
        found: Any = client.data.get(name, version=version)
    if not arm.is_ours(found.tags):
        raise DataError(
            f"{source} wasn't made by penguins, so that its columns may have other names and types than what is "
            f"collected, which Azure leaves out without a word: {WRITE_IT}, and give that."
        )
