"""The copy of a version that Azure Machine Learning serves: no Spark in it, and the packages that its images need."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import arm, azure_names, flavor
from penguins.errors import ServerError
from penguins.registry import Version

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment

IMAGES_NEED = ("azureml-ai-monitoring", "azureml-inference-server-http")
"""What an online endpoint's scoring script, Azure's own as well, imports and runs in beside MLflow and the model."""

BATCH_NEEDS = ("azureml-core", "azureml-dataset-runtime[fuse]")
"""What Azure's documentation asks of the environment of a batch deployment."""

SCRIPT, BATCH_SCRIPT = "azure_scoring.py", "azure_batch_scoring.py"

BASE_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
"""The image of Microsoft's in which Azure installs a scoring script's packages, as its documentation does it."""


def name_of(version: Version) -> str:
    """What the copy is registered as: the model's name, as far as Azure takes it, with `-serving`."""
    return azure_names.alike("model", f"{version.name.replace('.', '-')}-serving")


def register(client: MLClient, version: Version) -> str:
    """Register the version's copy under the same number, if it isn't there already; the asset's id.

    Raises ModelError when the version can't be loaded, ServerError when the workspace refuses, or has another model
    under the name and number.
    """
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    name, number = name_of(version), str(version.number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        digest = flavor.save_without_spark(version.uri, path, also_needs=IMAGES_NEED)
        if (found := _registered(client, name, number, digest)) is not None:
            return found
        tags = {**arm.MADE_BY, "copied_from": version.uri, "digest": digest}
        copy = Model(path=str(path), name=name, version=number, type=AssetTypes.MLFLOW_MODEL, tags=tags)
        with arm.told(f"{name} {number}"):
            return str(client.models.create_or_update(copy).id)


def _registered(client: MLClient, name: str, number: str, digest: str) -> str | None:
    """The id of the copy that is there already; None if there is none. Raises ServerError when it is another's."""
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(f"{name} {number}"):
        try:
            found = client.models.get(name, version=number)
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            return None
    if found.tags.get("digest") != digest:
        raise ServerError(
            f"The workspace has another model as version {number} of {name}: it comes from "
            f"{found.tags.get('copied_from', 'elsewhere')} of another store, or of an earlier release of this package; "
            "delete that version, or give --model another name."
        )
    return str(found.id)


@contextmanager
def script_folder(script: str) -> Iterator[Path]:
    """A folder with a scoring script alone, to be uploaded as the deployment's code; gone after the block."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(Path(__file__).with_name(script), folder)
        yield Path(folder)


def environment(version: Version) -> Environment:
    """What a scoring script of an online deployment runs in: the copy's packages in an image of Microsoft's, no Java.

    Azure builds it. Raises ModelError when the version can't be loaded.
    """
    return _environment("penguins-serving", _conda(version, IMAGES_NEED))


def batch_environment(version: Version) -> Environment:
    """What the scoring script of a batch deployment runs in, likewise."""
    conda = _conda(version, BATCH_NEEDS)
    *_, packages = conda["dependencies"]
    # Azure's own packages for batches still ask for an older NumPy than the one that a model names.
    packages["pip"] = [re.sub(r"^numpy==.*", "numpy", package) for package in packages["pip"]]
    return _environment("penguins-batch", conda)


def _conda(version: Version, also_needs: Sequence[str]) -> dict[str, Any]:
    """What the version's copy needs, as its conda.yaml says it, and more packages."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        flavor.save_without_spark(version.uri, path, also_needs=also_needs)
        conda: dict[str, Any] = yaml.safe_load((path / "conda.yaml").read_text())
        return conda


def _environment(name: str, conda: dict[str, Any]) -> Environment:
    from azure.ai.ml.entities import Environment

    digest = hashlib.sha256(json.dumps([BASE_IMAGE, conda]).encode()).hexdigest()
    return Environment(name=name, version=digest[:12], image=BASE_IMAGE, conda_file=conda, tags=dict(arm.MADE_BY))
