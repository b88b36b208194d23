"""Where rows come from: what is said when Spark fails at them. Reading itself is in `test_data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from py4j.protocol import Py4JJavaError

from penguins.errors import DataError, first_sentence
from penguins.source import told

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_an_error_of_the_jvm_without_a_text_is_told_by_its_kind(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    with pytest.raises(DataError) as error:
        told(lambda: jvm.java.util.Objects.requireNonNull(None), "birds.csv")
    assert str(error.value) == "birds.csv can't be read: NullPointerException"


def test_an_error_of_the_jvm_with_many_lines_is_told_by_its_first(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    with pytest.raises(Py4JJavaError) as error:
        jvm.java.util.Objects.requireNonNull(None, "\n  Two headers differ:\n one\n other")
    assert first_sentence(error.value) == "Two headers differ: one"
