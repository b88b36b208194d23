"""What all commands share: how they are invoked, how they end, and the options that several have."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click
from click.core import ParameterSource

from penguins import config
from penguins.errors import PenguinsError, StoreError, first_sentence, printable
from penguins.redaction import Redacted, without_secrets

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from penguins.tracking import Tracking

WORKSPACE = ("subscription", "resource_group", "workspace")
"""The options that name an Azure Machine Learning workspace."""


class Command(click.Command):
    """A command that keeps Spark's and MLflow's chatter from the user, unless it is told `--verbose`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; without `--verbose`, what libraries warn of, log and print to stderr is dropped."""
        if is_verbose():
            # Libraries log addresses with signatures, for example when they try a download again.
            with _notes_shown(), contextlib.redirect_stderr(cast("TextIO", Redacted(sys.stderr))):
                return super().invoke(ctx)
        warnings.simplefilter("ignore")
        for name in ("alembic", "py4j", "pyspark"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # What MLflow's loggers are set to when it is imported; it also prints, to stderr, past its loggers.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        # MLflow would try for minutes to reach a server that has gone; after the third time, a person wants to know.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        with (
            _notes_shown(),
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stderr(nowhere),
        ):
            return super().invoke(ctx)


class Commands(click.Group):
    """A group whose commands end with one sentence; told `--verbose`, with the traceback before it."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn what it raises into a ClickException."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.meta.get("verbose"):
                click.echo(printable(without_secrets(traceback.format_exc()), but="\n\t"), err=True)
            raise click.ClickException(_sentence(error)) from error


@contextlib.contextmanager
def _notes_shown() -> Iterator[None]:
    """Within the block what this package's own modules warn of is a line on the real stderr."""
    handler = logging.StreamHandler(sys.stderr)
    # In a terminal a progress bar may stand in the line.
    handler.setFormatter(
        logging.Formatter("\r\x1b[2K%(message)s" if sys.stderr and sys.stderr.isatty() else "%(message)s")
    )
    log = logging.getLogger(__package__)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _set_verbose(ctx: click.Context, _: click.Parameter, verbose: bool) -> None:
    ctx.meta["verbose"] = verbose


verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_set_verbose,
    help="Show what Spark and MLflow print, and the traceback of an error.",
)
data_option = click.option(
    "--data",
    default=config.DEFAULT_DATA,
    show_default=True,
    help="A CSV or Parquet file, a folder of them, a URI or Volumes path, or a table name.",
)
tracking_option = click.option(
    "--tracking-uri",
    "--tracking",
    envvar="MLFLOW_TRACKING_URI",
    help="Where runs are kept; `azureml` finds the workspace by itself.  [default: mlflow.db in this folder]",
)
model_option = click.option(
    "--model", default=config.DEFAULT_MODEL, show_default=True, help="The registered model's name."
)
experiment_option = click.option(
    "--experiment",
    envvar="MLFLOW_EXPERIMENT_NAME",
    # None leaves it to MLflow, which then asks for the experiment of that id.
    default=lambda: None if os.environ.get("MLFLOW_EXPERIMENT_ID") else config.DEFAULT_EXPERIMENT,
    show_default=config.DEFAULT_EXPERIMENT,
    help="The MLflow experiment.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else.")


def workspace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name an Azure Machine Learning workspace; what they leave out, the environment says."""
    for name in reversed(WORKSPACE):
        shown = name.replace("_", " ")
        command = click.option(f"--{name.replace('_', '-')}", help=f"Azure: the {shown}.  [default: as configured]")(
            command
        )
    return command


def refuse_options(choice: str, *names: str) -> None:
    """Raise UsageError when one of these options, which don't go with `choice`, was given."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = next(param.opts[0] for param in context.command.params if param.name == name)
            raise click.UsageError(f"{option} is not for {choice}.")


@contextlib.contextmanager
def azure_quiet() -> Iterator[None]:
    """Within the block what Azure's clients print to stdout, which is for results, goes where stderr goes."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def azure_client(
    subscription: str | None = None, resource_group: str | None = None, workspace: str | None = None
) -> MLClient:
    """The client of the Azure Machine Learning workspace that these name; what they leave out, the environment says."""
    from penguins import azureml

    return azureml.client(azureml.workspace(subscription, resource_group, workspace))


def reachable_store(tracking_uri: str | None, *, has_models: bool = False, register_as: str | None = None) -> Tracking:
    """The store to work with, which answers, and in which something was kept before if there must be models.

    Raises ParameterError when a model can't be registered there as `register_as`, StoreError when the store fails.
    """
    from penguins import names
    from penguins.tracking import Tracking

    store = Tracking.from_environment(tracking_uri)
    names.require_model(register_as, store.registry_uri or store.tracking_uri)
    if has_models:
        store.require()
    store.require_reachable()
    return store


def require_experiment(experiment: str | None) -> None:
    """Raise StoreError when a run in the experiment can't be made, before anything is computed for it."""
    from penguins import tracking

    if model := os.environ.get("MLFLOW_ACTIVE_MODEL_ID"):
        raise StoreError(
            f"MLFLOW_ACTIVE_MODEL_ID is {model}, so MLflow would give this run's metrics to that model, too: unset it."
        )
    # A job's run, which MLFLOW_RUN_ID names, is in an experiment already.
    if "MLFLOW_RUN_ID" not in os.environ:
        tracking.require_experiment(experiment)


def named_value(text: str) -> tuple[str, str]:
    """The name and the value of a tag such as `season=2026`. Raises UsageError for any other text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"The tag is {text!r}: give it as NAME=VALUE.")
    return name, value


def is_verbose() -> bool:
    """Whether the command that runs was told `--verbose`."""
    return bool(click.get_current_context().meta["verbose"])


EXPIRED = re.compile(r"\btoken\b[^.]{0,40}\b(expired|invalid|not valid|revoked)\b", re.IGNORECASE)
"""How servers say that who asks is no longer known; the refusal of a long run is often nothing but that."""


def _sentence(error: Exception) -> str:
    if isinstance(error, PenguinsError):
        said = str(error)
    else:
        reason = first_sentence(error).rstrip(".")
        said = printable(f"The command failed ({type(error).__name__}): {reason} (--verbose shows where).")
    if EXPIRED.search(said) and "sign in" not in said:
        return f"{said.rstrip('.')}; sign in again, with `az login` for example, or renew the token."
    return said
