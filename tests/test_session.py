"""Starting Spark: what is told when the environment is in the way. Each failure is the real one of a JVM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from penguins.session import reason

START = "from penguins.session import spark_session\nspark_session(brief=True)"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            """Picked up JAVA_TOOL_OPTIONS: -XX:NoSuchOption
Unrecognized VM option 'NoSuchOption'
Error: Could not create the Java Virtual Machine.
Error: A fatal exception has occurred. Program will exit.
/pyspark/bin/spark-class: line 97: CMD: bad array subscript""",
            "Unrecognized VM option 'NoSuchOption'",
        ),
        (
            """WARNING: Using incubator modules: jdk.incubator.vector
Error occurred during initialization of VM
Could not reserve enough space for 943718400KB object heap""",
            "Could not reserve enough space for 943718400KB object heap",
        ),
        (
            """Exception in thread "main" org.apache.spark.SparkException: Master must start with local
\tat org.apache.spark.SparkSubmit.main(SparkSubmit.scala:1)""",
            "org.apache.spark.SparkException: Master must start with local",
        ),
        (
            """Exception in thread "main" java.lang.ExceptionInInitializerError
\tat A.b(A.java:1)
Caused by: java.lang.RuntimeException: outer
\tat A.c(A.java:2)
Caused by: java.io.IOException: No space left on device
\t... 7 more""",
            "java.io.IOException: No space left on device",
        ),
        (
            "Error: Missing application resource.\nUsage: spark-submit [options]\n  --queue Q",
            "Missing application resource.",
        ),
        ("\nPicked up _JAVA_OPTIONS: -Xmx1g\n", None),
    ],
)
def test_the_line_with_the_reason_is_found(said: str, expected: str | None) -> None:
    assert reason(said.splitlines()) == expected


def other_spark(folder: Path) -> Path:
    for name in ("bin/spark-submit", "jars/spark-core_2.12-3.5.1.jar"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def started_with(**variables: str) -> str:
    """The last line on stderr of a process that starts Spark."""
    environment = {name: text for name, text in os.environ.items() if name != "SPARK_HOME"} | variables
    done = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.mark.spark
def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    nothing, other = tmp_path / "nothing", other_spark(tmp_path / "other")
    assert started_with(SPARK_HOME=str(nothing)) == (
        f"penguins.errors.JavaError: SPARK_HOME is {nothing}, where there is no Spark: "
        "unset it, or give the folder of one."
    )
    assert started_with(SPARK_HOME=str(other)) == (
        f"penguins.errors.JavaError: SPARK_HOME is {other}, which has Spark 3.5, and pyspark here is "
        f"{pyspark.__version__}: unset SPARK_HOME, or install the pyspark of that version."
    )
    said = started_with(JAVA_TOOL_OPTIONS="-XX:NoSuchOption")
    assert said.startswith("penguins.errors.JavaError: Spark can't start: Unrecognized VM option 'NoSuchOption' (the ")
    assert "JAVA_TOOL_OPTIONS" in said
    said = started_with(PYSPARK_SUBMIT_ARGS="--master local[1]")
    assert said.startswith("penguins.errors.JavaError: Spark can't start: Missing application resource (the ")
    assert "PYSPARK_SUBMIT_ARGS" in said
    said = started_with(SPARK_REMOTE="nonsense")
    assert said.startswith("penguins.errors.JavaError: Spark can't start: [INVALID_CONNECT_URL] Invalid URL")
    assert "SPARK_REMOTE" in said
