"""A version whose files were changed after it was registered is refused before any of it is loaded."""

from __future__ import annotations

import py_compile
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from penguins import champion, deploy, deploy_azureml, flavor, integrity, monitor, predict, registry, serve
from penguins.errors import ModelError, PenguinsError
from penguins.promote import promote
from penguins.registry import Version
from penguins.tracking import Tracking
from tests.conftest import LAB_BIRD, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NAME = "penguin_predictor"
CHANGED = (
    r"models:/penguin_predictor/3 can't be loaded: its files aren't those that were registered \(their digest is "
    r"[0-9a-f]{12}, the version's tag digest_model says [0-9a-f]{12}\): take another version, or register this one "
    r"anew if the change is yours\."
)


@pytest.fixture
def files(models: Path, tmp_path: Path) -> Path:
    """The files of version 3, which is the champion, in a place of their own; version 1 is the previous champion."""
    found = mlflow.artifacts.download_artifacts(f"models:/{NAME}/3", dst_path=str(tmp_path / "artifacts"))
    for path in Path(found).rglob("__pycache__"):
        shutil.rmtree(path)
    keep_at(models, 3, Path(found))
    for number in (1, 3):
        champion.move(Version(NAME, number), instead_of=champion.version_of(NAME))
    return Path(found)


def keep_at(database: Path, version: int, folder: Path) -> None:
    """Make the registry say that a version's files are there."""
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(
            "UPDATE model_versions SET storage_location = ? WHERE version = ?", (folder.as_uri(), version)
        )
    connection.close()


def scorer_of(files: Path) -> Path:
    [scorer] = (files / "code").glob("penguins_scorer_*.py")
    return scorer


def trap(marker: Path) -> str:
    """Python that leaves a mark when it is run."""
    return f"open({str(marker)!r}, 'w').close()\n"


def edit_scorer(files: Path, marker: Path) -> None:
    scorer_of(files).write_text(scorer_of(files).read_text() + trap(marker))


def edit_loader(files: Path, marker: Path) -> None:
    (files / "code" / "other.py").write_text(trap(marker) + "def _load_pyfunc(path): ...\n")
    described = files / "MLmodel"
    described.write_text(re.sub(r"loader_module: \S+", "loader_module: other", described.read_text()))


def rename_scorer(files: Path, marker: Path) -> None:
    """An edited scorer under the name that fits it."""
    source = (scorer_of(files).read_text() + trap(marker)).encode()
    name = integrity.scorer_name(source)
    (files / "code" / f"{name}.py").write_bytes(source)
    described = files / "MLmodel"
    described.write_text(re.sub(r"loader_module: \S+", f"loader_module: {name}", described.read_text()))


def hide_numpy(files: Path, marker: Path) -> None:
    (files / "code" / "onnxruntime.py").write_text(trap(marker))


def exchange_graph(files: Path, marker: Path) -> None:
    other = flavor.load_python_function(f"models:/{NAME}/1")
    path = mlflow.artifacts.download_artifacts(f"models:/{NAME}/1")
    assert other is not None
    shutil.copy(Path(path) / "model.onnx", files)


def ask_for_a_package(files: Path, marker: Path) -> None:
    with (files / "requirements.txt").open("a") as requirements:
        requirements.write("\nsome-package\n")


def edit_spark(files: Path, marker: Path) -> None:
    [metadata] = (files / "sparkml" / "metadata").glob("part-*")
    metadata.write_text(metadata.read_text().replace("PipelineModel", "other.Model", 1))


def drop_signature(files: Path, marker: Path) -> None:
    described = files / "MLmodel"
    described.write_text(described.read_text().partition("signature:")[0])


@pytest.mark.parametrize(
    "change", [edit_loader, rename_scorer, hide_numpy, exchange_graph, ask_for_a_package, edit_spark, drop_signature]
)
def test_whatever_was_changed_is_noticed_before_anything_is_loaded(
    files: Path, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    assert flavor.load_scorer(f"models:/{NAME}/3").predict(LAB_BIRD)["species"].item() == "Gentoo"
    change(files, tmp_path / "ran")
    for uri in (f"models:/{NAME}/3", f"models:/{NAME}@champion", f"models:/{NAME}/latest"):
        # The Spark flavor is refused as well, without a Spark session.
        for load in (flavor.load_scorer, flavor.load_spark):
            with pytest.raises(ModelError) as refused:
                load(uri)
            assert re.fullmatch(CHANGED.replace(f"{NAME}/3", uri.removeprefix("models:/"), 1), str(refused.value))
    assert not (tmp_path / "ran").exists()


def test_an_edited_scorer_is_refused_even_where_nothing_was_registered(files: Path, tmp_path: Path) -> None:
    name = scorer_of(files).stem
    edit_scorer(files, tmp_path / "ran")
    with pytest.raises(ModelError) as refused:
        flavor.load_scorer(str(files))
    assert re.fullmatch(
        rf"{files} can't be loaded: its scorer {name} has been changed \(its content would be called "
        r"penguins_scorer_[0-9a-f]{12}\)\.",
        str(refused.value),
    )
    scorer_of(files).unlink()
    with pytest.raises(ModelError) as refused:
        flavor.load_scorer(str(files))
    assert str(refused.value) == f"{files} can't be loaded: its loader_module is {name}, but it has no scorer."
    assert not (tmp_path / "ran").exists()


def test_compiled_code_beside_the_scorer_is_not_run(files: Path, tmp_path: Path) -> None:
    """Python runs it in place of the source when size and time fit."""
    source = scorer_of(files)
    evil = tmp_path / "evil.py"
    evil.write_text(source.read_text() + trap(tmp_path / "ran"))
    compiled = Path(py_compile.compile(str(evil), cfile=str(tmp_path / "evil.pyc"), doraise=True) or "")
    stat = source.stat()
    content = bytearray(compiled.read_bytes())
    content[8:12] = int(stat.st_mtime).to_bytes(4, "little")
    content[12:16] = stat.st_size.to_bytes(4, "little")
    (source.parent / "__pycache__").mkdir()
    (source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc").write_bytes(content)
    sys.modules.pop(source.stem, None)
    assert flavor.load_scorer(f"models:/{NAME}/3").predict(LAB_BIRD)["species"].item() == "Gentoo"
    assert not (tmp_path / "ran").exists()
    # MLflow by itself does run it: the trap is one.
    sys.modules.pop(source.stem)
    mlflow.pyfunc.load_model(str(files))
    assert (tmp_path / "ran").exists()
    sys.modules.pop(source.stem)


def test_nobody_serves_judges_or_scores_with_a_changed_version(
    spark: SparkSession, files: Path, models: Path, tmp_path: Path
) -> None:
    edit_scorer(files, tmp_path / "ran")
    version, uri = Version(NAME, 3), f"models:/{NAME}/3"
    here, there = Tracking.local(tmp_path), Tracking.local(tmp_path / "there")
    (tmp_path / "there").mkdir()
    nobody: Any = None
    ways: list[Callable[[], Any]] = [
        lambda: serve.serve(here, uri, "127.0.0.1", 0, lambda version, url: None),
        lambda: predict.predict(spark, PENGUINS_CSV, tmp_path / "scored.csv", model_uri=uri),
        lambda: monitor.monitor(spark, PENGUINS_CSV, PENGUINS_CSV, model=uri),
        # Refused before the workspace is asked for anything.
        lambda: deploy.deploy(version, client=nobody),
        lambda: deploy_azureml.deploy(version, client=nobody),
        lambda: flavor.save_without_spark(uri, tmp_path / "copy"),
        lambda: registry.copy_version(NAME, 3, here, there),
    ]
    said = CHANGED.replace("be loaded", r"be (loaded|read from sqlite:\S+)")
    for way in ways:
        with pytest.raises(PenguinsError) as refused:
            way()
        assert re.fullmatch(said, str(refused.value)), str(refused.value)
    result = promote(spark, Version(NAME, 1))
    assert not result.verdict.promote
    assert "its files aren't those that were registered" in result.verdict.reasons[0]
    # Version 1 becomes champion again, and then there is no way back to what was changed.
    assert champion.roll_back(NAME) == (Version(NAME, 1), version)
    assert champion.version_of(NAME, "previous_champion") != version
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "scored.csv").exists()


def test_a_way_back_to_a_changed_version_is_refused(files: Path, tmp_path: Path) -> None:
    champion.move(Version(NAME, 1), instead_of=Version(NAME, 3))
    exchange_graph(files, tmp_path)
    with pytest.raises(ModelError) as refused:
        champion.roll_back(NAME)
    assert re.fullmatch(CHANGED, str(refused.value))
    assert champion.version_of(NAME) == Version(NAME, 1)


def test_a_version_that_was_registered_without_a_digest_is_loaded(files: Path) -> None:
    ask_for_a_package(files, files)
    mlflow.MlflowClient().delete_model_version_tag(NAME, "3", integrity.TAG)
    assert flavor.load_scorer(f"models:/{NAME}/3").predict(LAB_BIRD)["species"].item() == "Gentoo"


def test_the_digest_is_that_of_the_files_and_no_other(files: Path) -> None:
    digest = mlflow.MlflowClient().get_model_version(NAME, "3").tags["digest_model"]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert integrity.digest(files) == digest
    others = {mlflow.MlflowClient().get_model_version(NAME, number).tags["digest_model"] for number in ("1", "2")}
    assert len({digest, *others}) == 3
    # What MLflow adds when it loads, logs or registers a model is nobody's change.
    (files / "code" / "__pycache__").mkdir()
    (files / "code" / "__pycache__" / "compiled.pyc").write_bytes(b"code")
    (files / "registered_model_meta").write_text("model_name: another\n")
    described = files / "MLmodel"
    described.write_text(re.sub(r"run_id: \S+", "run_id: another", described.read_text()))
    assert integrity.digest(files) == digest
    (files / "model.onnx").rename(files / "model2.onnx")
    assert integrity.digest(files) != digest


def refusal(files: Path, content: bytes, load: Callable[[str], Any]) -> str | None:
    """What is said of a version that has no digest, when its description is this; None when it is loaded."""
    (files / "MLmodel").write_bytes(content)
    try:
        load(f"models:/{NAME}/3")
    except ModelError as error:
        return str(error)
    return None


def test_a_description_cut_short_anywhere_is_told_in_a_sentence(spark: SparkSession, files: Path) -> None:
    mlflow.MlflowClient().delete_model_version_tag(NAME, "3", integrity.TAG)
    whole = (files / "MLmodel").read_bytes()
    lengths = [0, 3, *range(20, whole.index(b"signature:"), 61)]
    told = [refusal(files, whole[:length], flavor.load_scorer) for length in lengths]
    told += [refusal(files, whole[:length], flavor.load_spark) for length in lengths]
    sentence = re.compile(r"models:/penguin_predictor/3 can't be loaded: its (file MLmodel|loader_module is) .*\.")
    assert not [said for said in told if said is not None and not sentence.fullmatch(said)]
    for part in ("damaged (it describes nothing)", "damaged (it names no flavor)", "and no ", "loader_module is"):
        assert any(said is not None and part in said for said in told), part
    damaged = (b"\xff\xfe\x00", b"flavors: [", b"flavors: {python_function: 3}", b"- a\n- b\n", b"flavors: {onnx: {}}")
    for content in damaged:
        said = refusal(files, content, flavor.load_scorer)
        assert said is not None
        assert sentence.fullmatch(said), said
