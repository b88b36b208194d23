"""Whether a model is what was registered: a digest of its files, compared before any of them is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penguins import dialect
from penguins.errors import ModelError, first_sentence

TAG = "digest_model"
"""The tag of a version that holds the digest of its model."""

DESCRIPTION = "MLmodel"
"""The file in which MLflow describes a model; logging and registering rewrite parts of it."""

CACHE = "__pycache__"
"""Compiled code, which Python would run in place of the source beside it, and makes again."""

WRITTEN_BY_MLFLOW = {"registered_model_meta", "environment_variables.txt"}
"""What logging, registering or loading a model may add to its folder, and nothing reads to answer."""

SHARED = "metadata"
"""Where Databricks puts copies of the description for whoever may not read the model."""

FAILED = "can't be loaded"

SCORER = "penguins_scorer_"
"""How the scorer's module in a model is called, before the first twelve digits of its file's SHA-256."""


def scorer_name(source: bytes) -> str:
    """The module name of a scorer with this source: another content has another name."""
    return f"{SCORER}{hashlib.sha256(source).hexdigest()[:12]}"


def describe(folder: Path) -> dict[str, Any]:
    """What the file MLmodel in a model's folder says, `flavors` among it. Raises ModelError when it can't be used."""
    import yaml

    try:
        described = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {DESCRIPTION} in its folder, or no folder: its files are gone") from error
    except OSError as error:
        raise ModelError(f"its file {DESCRIPTION} can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(_damaged(f"it is no YAML{_place(error)}")) from error
    if not isinstance(described, dict):
        raise ModelError(_damaged("it describes nothing"))
    flavors = described.get("flavors")
    if not isinstance(flavors, dict) or not flavors or not all(isinstance(one, dict) for one in flavors.values()):
        raise ModelError(_damaged("it names no flavor"))
    return described


def require_flavor(folder: Path, flavor: str) -> None:
    """Raise ModelError when the model in the folder doesn't say how it is loaded as this flavor."""
    described = describe(folder)
    if flavor not in described["flavors"]:
        names = ", ".join(sorted(map(str, described["flavors"])))
        raise ModelError(
            f"its file {DESCRIPTION} names the flavors {names} and no {flavor}: it is damaged, or another kind of model"
        )
    needed = {"python_function": "loader_module", "spark": "model_data", "onnx": "data"}[flavor]
    if not isinstance(described["flavors"][flavor].get(needed), str):
        raise ModelError(_damaged(f"the flavor {flavor} has no {needed}"))


def has_scorer(folder: Path) -> bool:
    """Whether the model in the folder is served by this package's scorer."""
    return str(describe(folder)["flavors"].get("python_function", {}).get("loader_module")).startswith(SCORER)


def digest(folder: Path) -> str:
    """The SHA-256 of all that loading and asking a model reads: its files, flavors, and signature, as 64 hex digits.

    Not in it: the rest of the file MLmodel (ids and times, which change when a model is logged), and compiled code,
    which is never loaded here.
    """
    described = describe(folder)
    content = {"flavors": described["flavors"], "signature": _columns(described), "files": _files(folder)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def checked_copy(model_uri: str) -> Iterator[Path]:
    """A copy of the model's files for the block, as `fetch` makes it."""
    with tempfile.TemporaryDirectory(prefix="penguins-model-", ignore_cleanup_errors=True) as temporary:
        try:
            yield fetch(model_uri, Path(temporary))
        finally:
            forget(temporary)


def fetch(model_uri: str, temporary: Path, failed: str = FAILED) -> Path:
    """Bring a model's files to a folder in `temporary`, and check that they are what was registered; the folder.

    `model_uri` is a path or any URI that MLflow knows. A version of a registered model is compared with the digest in
    its tag, if it has one; the scorer of this package with the digest in its name, in any model. What is compared is
    the copy, which is then loaded, so that nobody can change it in between; compiled code isn't copied.
    Raises ModelError, with `failed` in its sentence, when the files can't be had, or are others; nothing of the model
    has been loaded then.
    """
    import mlflow.artifacts

    with told(model_uri, failed):
        model_uri, expected = _registered(model_uri)
        if Path(model_uri).is_dir():
            found = Path(model_uri)
        else:
            downloads = temporary / "downloads"
            downloads.mkdir()
            with _no_progress_bar():
                found = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(downloads)))
        if not (found / DESCRIPTION).exists():
            describe(found)
        # A local store may give its own folder, which must stay as it is.
        folder = Path(shutil.copytree(found, temporary / "model", ignore=shutil.ignore_patterns(CACHE)))
        if expected is not None and (present := digest(folder)) != expected:
            raise ModelError(
                f"its files aren't those that were registered (their digest is {present[:12]}, the version's tag {TAG} "
                f"says {expected[:12]}): take another version, or register this one anew if the change is yours"
            )
        _require_scorer(folder)
    return folder


def forget(temporary: str | Path) -> None:
    """Take folders in `temporary` off Python's search path: whoever made a folder of that name again would be run."""
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(temporary)]


@contextmanager
def told(model_uri: str, failed: str = FAILED) -> Iterator[None]:
    """Turn what keeps a model from being loaded within the block into one sentence."""
    try:
        yield
    except ImportError as error:
        raise ModelError(
            f"{model_uri} {failed} ({first_sentence(error)}): install what is missing; for models in Unity "
            'Catalog that is `pip install "penguins[databricks]"`.'
        ) from error
    except Exception as error:  # each of the libraries has its own words for files that are broken
        raise ModelError(f"{model_uri} {failed}: {first_sentence(error).rstrip('.')}.") from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Within the block MLflow shows no bar for the files it fetches, unless its own variable says so."""
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _registered(model_uri: str) -> tuple[str, str | None]:
    """The URI of the version that a URI stands for at this moment, and the digest in its tag; others as they are."""
    import mlflow
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    if not model_uri.startswith("models:/"):
        return model_uri, None
    client = mlflow.MlflowClient()
    if alias := re.fullmatch(r"models:/(?P<name>[^@/]+)@(?P<alias>[^@/]+)", model_uri):
        name, number = alias["name"], dialect.marked(alias["name"], alias["alias"])
        if number is None:
            raise ModelError(f"{name} doesn't have the alias {alias['alias']}")
    else:
        # MLflow hasn't typed it; of a logged model's URI it gives the id alone.
        match get_model_name_and_version(client, model_uri):  # type: ignore[no-untyped-call]
            case (name, number):
                pass
            case _:
                return model_uri, None
    found = client.get_model_version(name, str(number))
    return f"models:/{name}/{number}", found.tags.get(TAG)


def _require_scorer(folder: Path) -> None:
    """Raise ModelError when a model with this package's scorer would load another module, or a changed scorer."""
    module = describe(folder)["flavors"].get("python_function", {}).get("loader_module")
    scorers = {file.stem: file for file in (folder / "code").glob(f"{SCORER}*.py")}
    if module is None or not (scorers or has_scorer(folder)):
        return
    if module not in scorers:
        there = f"its scorer is {', '.join(sorted(scorers))}" if scorers else "it has no scorer"
        raise ModelError(f"its loader_module is {module}, but {there}")
    if (name := scorer_name(scorers[module].read_bytes())) != module:
        raise ModelError(f"its scorer {module} has been changed (its content would be called {name})")


def _files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that counts, by its path in the folder."""
    files: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        counts = name.parts[0] not in {DESCRIPTION, SHARED, *WRITTEN_BY_MLFLOW} and CACHE not in name.parts
        if path.is_file() and counts:
            with path.open("rb") as file:
                files[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return files


def _columns(described: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Names and types of what goes in and comes out; of the rest versions of MLflow write more or less."""
    signature = described.get("signature") or {}
    return {
        side: [[str(column.get("name")), str(column.get("type"))] for column in json.loads(signature[side])]
        for side in ("inputs", "outputs")
        if signature.get(side)
    }


def _damaged(why: str) -> str:
    return f"its file {DESCRIPTION} is damaged ({why}): take another version, or the model from where it is whole"


def _place(error: Exception) -> str:
    """Where in a file its YAML ends to be any."""
    mark = getattr(error, "problem_mark", None)
    return f" in line {mark.line + 1}" if mark is not None else ""
