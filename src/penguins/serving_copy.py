"""The copy of a version that Azure Machine Learning serves: no Spark in it, and the packages that its images need."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import arm, azure_names, flavor
from penguins.errors import ServerError
from penguins.registry import Version

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment

IMAGES_NEED = ("azureml-ai-monitoring", "azureml-inference-server-http")
"""What Azure's scoring script imports, or runs in, beside MLflow and the model."""

SCRIPT = "azure_scoring.py"

SCORING_PORT = 5001

DOCKERFILE = """\
FROM python:3.11-slim
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
EXPOSE 5001
CMD exec azmlinfsrv --port 5001 --entry_script "${AML_APP_ROOT:-$AZUREML_APP_ROOT}/$AZUREML_ENTRY_SCRIPT"
"""
"""An image without Java; the server in it finds the model and the script where Azure says it has put them.

Deployments tell the script's folder as AML_APP_ROOT, Azure's examples for one's own machine as AZUREML_APP_ROOT.
"""


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
def script_folder() -> Iterator[Path]:
    """A folder with the scoring script alone, to be uploaded as the deployment's code; gone after the block."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(Path(__file__).with_name(SCRIPT), folder)
        yield Path(folder)


@contextmanager
def image(version: Version) -> Iterator[Environment]:
    """The image in which our scoring script runs: the copy's requirements, and the server; gone after the block."""
    from azure.ai.ml.entities import BuildContext, Environment

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        flavor.save_without_spark(version.uri, path, also_needs=IMAGES_NEED)
        context = Path(folder, "context")
        context.mkdir()
        shutil.copy(path / "requirements.txt", context)
        (context / "Dockerfile").write_text(DOCKERFILE)
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(context.iterdir()))).hexdigest()
        route = {"port": SCORING_PORT, "path": "/"}
        yield Environment(
            name="penguins-serving",
            version=digest[:12],
            build=BuildContext(path=str(context), dockerfile_path="Dockerfile"),
            inference_config={
                "liveness_route": route,
                "readiness_route": route,
                "scoring_route": {"port": SCORING_PORT, "path": "/score"},
            },
            tags=dict(arm.MADE_BY),
        )
