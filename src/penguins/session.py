"""The one place that makes a Spark session."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penguins.errors import JavaError, PenguinsError, first_sentence
from penguins.java import java_home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VARIABLES = (
    *("SPARK_HOME", "SPARK_CONF_DIR", "SPARK_REMOTE", "SPARK_API_MODE", "SPARK_LOCAL_IP", "SPARK_LOCAL_DIRS", "MASTER"),
    *("SPARK_DRIVER_MEMORY", "PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT"),
    *("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"),
)
"""What Spark and Java heed of the environment, and which may be in the way when Spark can't start."""

NO_REASON = re.compile(
    r"Picked up |NOTE: |WARNING: |\tat |\t?\.\.\. \d+ more|Error occurred during initialization of VM"
    r"|Error: Could not create the Java|Error: A fatal exception|.*: line \d+: "
)
"""How lines begin that a JVM and Spark's scripts print around the one that says what is wrong."""

LOG4J = Path(__file__).with_name("log4j2.properties")


def spark_session(*, verbose: bool = False, brief: bool = False) -> SparkSession:
    """The Spark session to work with: the one that is there (as on Databricks), or a new one on this machine.

    `brief` tunes a new JVM to be quick at once instead of fast in the long run, for little data.
    `SPARK_REMOTE`, `MASTER` and `SPARK_DRIVER_MEMORY` mean what they mean to Spark. Without `verbose` nothing that the
    JVM prints reaches the user, but the line with the reason is told when Spark can't start.
    Raises PenguinsError without pyspark, JavaError without a Java that works.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise PenguinsError('pyspark is not installed: run `pip install "penguins[local]"`.') from error
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    if not (os.environ.get("SPARK_REMOTE") or os.environ.get("DATABRICKS_RUNTIME_VERSION")):
        _start_local_spark(verbose, brief)
    from pyspark.errors import PySparkException

    try:
        return SparkSession.builder.appName("penguins").getOrCreate()
    except PySparkException as error:  # as for an address in SPARK_REMOTE that is none
        raise _cant_start(first_sentence(error)) from error


@contextmanager
def running_session(
    *, verbose: bool = False, brief: bool = False, meanwhile: Callable[[], None] | None = None
) -> Iterator[SparkSession]:
    """A Spark session for the `with` block; `meanwhile` is called while it starts.

    A session made here is stopped afterwards; one that was there, or that Databricks owns, goes on.
    """
    # Asked before the thread starts: while it imports, pyspark could be there by half.
    others = _is_running() or "DATABRICKS_RUNTIME_VERSION" in os.environ
    if meanwhile is not None:
        threading.Thread(target=meanwhile).start()
    spark = spark_session(verbose=verbose, brief=brief)
    try:
        yield spark
    finally:
        if not others:
            spark.stop()


def _is_running() -> bool:
    """Whether there is a session already; without pyspark loaded there can't be one."""
    sql = sys.modules.get("pyspark.sql")
    return sql is not None and sql.SparkSession.getActiveSession() is not None


def _start_local_spark(verbose: bool, brief: bool) -> None:
    """Start a JVM and a Spark context on this machine; the session builder then finds them."""
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    if home := java_home():
        os.environ["JAVA_HOME"] = home
    # Spark's Python workers would otherwise be whatever `python3` the PATH finds.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    _require_own_spark()
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    conf = SparkConf().setAll(list(_settings(verbose, brief).items())).setMaster(os.environ.get("MASTER", "local[*]"))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            # A JVM that Spark has started once in this process serves every later session.
            if SparkContext._gateway is None:
                output = None if verbose else said
                with _names_in_utf8():
                    gateway = launch_gateway(conf, {"stdout": output, "stderr": output})  # type: ignore[no-untyped-call]
                SparkContext(conf=conf.setAppName("penguins"), gateway=gateway)
            else:
                SparkContext(conf=conf.setAppName("penguins"))
        except Py4JError as error:  # the JVM is there, and says why it makes no session
            raise _cant_start(first_sentence(error)) from error
        except (PySparkException, OSError) as error:
            said.seek(0)
            raise _cant_start(reason(said) or first_sentence(error)) from error
    if threading.current_thread() is threading.main_thread():
        # PySpark's own handler asks the JVM to cancel its jobs, on the very connection that waits for a job. That
        # fails, the caller gets an error in place of KeyboardInterrupt, and a search takes it for a failed trial.
        signal.signal(signal.SIGINT, on_ctrl_c)


@contextmanager
def _names_in_utf8() -> Iterator[None]:
    """Within the block a JVM starts that writes names of files in UTF-8, as Python does, also where LC_ALL is C."""
    before = os.environ.get("LC_ALL")
    if before in {"C", "POSIX"}:
        os.environ["LC_ALL"] = "C.UTF-8"
    try:
        yield
    finally:
        if before is not None:
            os.environ["LC_ALL"] = before


def reason(said: Iterable[str]) -> str | None:
    """The line among what a JVM printed before it ended that tells why; None where there is none.

    That is the last cause of an exception, and otherwise the first line that isn't printed always.
    """
    lines = [line.rstrip() for line in said if line.strip() and not NO_REASON.match(line)]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    found = causes[-1:] or lines[:1]
    return re.sub(r'^(Caused by: |Exception in thread "[^"]*" |Error: )', "", found[0]) if found else None


def _cant_start(why: str) -> JavaError:
    heeded = [name for name in VARIABLES if os.environ.get(name)]
    also = f" (the environment sets {', '.join(heeded)})" if heeded else ""
    return JavaError(f"Spark can't start: {why.rstrip('.')}{also}.")


def _require_own_spark() -> None:
    """Raise JavaError when SPARK_HOME leads to no Spark, or to one that pyspark can't talk to."""
    import pyspark

    home = os.environ.get("SPARK_HOME")
    if not home:
        return
    if not Path(home, "bin", "spark-submit").is_file():
        raise JavaError(f"SPARK_HOME is {home}, where there is no Spark: unset it, or give the folder of one.")
    jars = (file.name for file in Path(home, "jars").glob("spark-core_*.jar"))
    versions = [found[1] for jar in jars if (found := re.match(r"spark-core_[\d.]+-(\d+\.\d+)", jar))]
    if versions and not pyspark.__version__.startswith(f"{versions[0]}."):
        raise JavaError(
            f"SPARK_HOME is {home}, which has Spark {versions[0]}, and pyspark here is {pyspark.__version__}: "
            "unset SPARK_HOME, or install the pyspark of that version."
        )


def _settings(verbose: bool, brief: bool) -> dict[str, str]:
    """For one machine: no web page, as many shuffle partitions as cores, times that mean the same everywhere."""
    cores = os.cpu_count() or 1
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(cores),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    if "SPARK_DRIVER_MEMORY" not in os.environ:
        settings["spark.driver.memory"] = f"{_driver_memory()}g"
    options = [] if verbose else [f"-Dlog4j2.configurationFile={LOG4J.as_uri()}"]
    # The second compiler and the parallel collector earn back what they cost only in minutes of work.
    options += ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if brief else []
    settings["spark.driver.extraJavaOptions"] = " ".join(options)
    return settings


def _driver_memory() -> int:
    """A third of the machine's memory in GiB, from 1 (Spark's own default) to 8."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    except (AttributeError, ValueError, OSError):
        return 1
    return max(1, min(8, total // 3))
