"""The command line: parse, make one call, print. Spark and MLflow are loaded by the commands that need them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penguins import __version__, azure_commands, config, output, serving_commands
from penguins.commands import (
    Commands,
    data_option,
    experiment_option,
    is_verbose,
    json_option,
    model_option,
    named_value,
    reachable_store,
    require_experiment,
    tracking_option,
    verbose_option,
)
from penguins.config import Policy, SearchParameters, TrainingParameters

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from penguins.tracking import Tracking

DEFAULTS = TrainingParameters()
SEARCH = SearchParameters()
POLICY = Policy()
JUDGED = config.Thresholds()

ANSWER_IS_NO = 3


class AnswerIsNoError(click.ClickException):
    """What failed after the answer was found: the answer counts."""

    exit_code = ANSWER_IS_NO


"""The exit code of a gate that refuses and of a monitor that finds drift: nothing failed."""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="penguins")
def main() -> None:
    """Take a Spark ML model from a CSV file to a registered version that anything can serve.

    MLflow's own environment variables count: MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI, MLFLOW_EXPERIMENT_NAME,
    MLFLOW_EXPERIMENT_ID, and those for signing in to a server.
    Without them, runs and models are kept in mlflow.db in the current folder.

    Exit codes: 0 done, 1 failed with one sentence on stderr, 2 wrong usage, 3 the answer is "no".
    """


def run() -> None:
    """What the console script calls: `main`, but success returns.

    A job on Databricks that calls it takes any SystemExit for a failure, that of exit code 0 too.
    """
    with output.lasting():
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise


@main.command()
@data_option
@click.option(
    "--max-quarantined", type=click.FloatRange(0, 1), default=config.MOST_QUARANTINED, show_default=True,
    help="The share of rows set aside from which on the answer is no.",
)  # fmt: skip
@click.option("--quarantine", type=click.Path(path_type=Path), help="Write the rows set aside to this CSV file.")
@json_option
@verbose_option
def check(data: str, max_quarantined: float, quarantine: Path | None, as_json: bool) -> None:
    """Look at the data before training: good rows by class, the others by reason; exit code 3 if too many are bad."""
    from penguins import check, show

    with show.progress(("Starting Spark", *check.STEPS)) as report:
        report("Starting Spark")
        with _spark(data) as spark:
            result = check.check(spark, data, quarantine=quarantine, report=report)
    if as_json:
        click.echo(json.dumps(show.checked_as_json(result)))
    else:
        show.checked(result)
    if result.share > max_quarantined:
        sys.exit(ANSWER_IS_NO)


@main.command()
@data_option
@click.option("--max-iter", type=int, default=DEFAULTS.max_iter, show_default=True, help="Iterations at most.")
@click.option("--reg-param", type=float, default=DEFAULTS.reg_param, show_default=True, help="Regularization, from 0.")
@click.option(
    "--elastic-net-param",
    type=float,
    default=DEFAULTS.elastic_net_param,
    show_default=True,
    help="0 is ridge, 1 is lasso, and anything between is a mix.",
)
@click.option("--seed", type=int, default=DEFAULTS.seed, show_default=True, help="Which rows become test rows.")
@click.option("--test-fraction", type=float, default=DEFAULTS.test_fraction, show_default=True, help="How many.")
@experiment_option
@click.option("--run-name", help="The run's name.  [default: MLflow makes one up]")
@click.option("--register-as", default=config.DEFAULT_MODEL, show_default=True, help="The registered model's name.")
@click.option("--no-register", is_flag=True, help="Log the model, but don't register it.")
@click.option("--save", "save_to", type=click.Path(path_type=Path), help="Save the model to this path as well.")
@click.option("--quarantine", type=click.Path(path_type=Path), help="Write the rows set aside to this CSV file.")
@click.option("--autolog", is_flag=True, help="Let MLflow's autologging record the regression's fit as well.")
@tracking_option
@json_option
@verbose_option
def train(
    data: str,
    max_iter: int,
    reg_param: float,
    elastic_net_param: float,
    seed: int,
    test_fraction: float,
    register_as: str,
    no_register: bool,
    save_to: Path | None,
    tracking_uri: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model, track it in MLflow, and register it.

    Reads the data, sets bad rows aside, splits the rest by a hash of each row, fits the five-stage pipeline,
    evaluates it on the test rows, and logs parameters, metrics, pictures and the model to one run.
    """
    parameters = TrainingParameters(max_iter, reg_param, elastic_net_param, seed, test_fraction)
    from penguins import flavor, show, train

    if save_to is not None:
        flavor.require_free(save_to)
    with show.progress(("Starting Spark", *train.SOURCE_STEPS, *train.STEPS)) as report:
        report("Starting Spark")
        register = None if no_register else register_as
        with _working_on(data, reachable_store(tracking_uri, register_as=register)) as spark:
            require_experiment(options["experiment"])
            trained = train.train_from_source(spark, data, parameters, register_as=register, report=report, **options)
            if save_to is not None:
                flavor.save(trained.model, save_to, trained.input_example, trained.spec)
    if as_json:
        click.echo(json.dumps(show.as_json(trained)))
    else:
        show.trained(trained)


@main.command()
@data_option
@click.option("--trials", type=int, default=SEARCH.trials, show_default=True, help="How many parameter sets to try.")
@click.option("--timeout", type=float, help="Seconds after which no trial begins.  [default: none]")
@click.option("--parallelism", type=int, default=SEARCH.parallelism, show_default=True, help="Trials at a time.")
@click.option("--folds", type=int, help="Validate on so many parts in turn.  [default: on a quarter of the rows]")
@click.option("--seed", type=int, default=SEARCH.seed, show_default=True, help="Of the split and of the search.")
@click.option("--test-fraction", type=float, default=SEARCH.test_fraction, show_default=True, help="Rows kept out.")
@experiment_option
@click.option("--run-name", help="The search's name.  [default: MLflow makes one up]")
@click.option("--register-as", default=config.DEFAULT_MODEL, show_default=True, help="The registered model's name.")
@click.option("--no-register", is_flag=True, help="Log the best model, but don't register it.")
@tracking_option
@json_option
@verbose_option
def tune(
    data: str,
    trials: int,
    timeout: float | None,
    parallelism: int,
    folds: int | None,
    seed: int,
    test_fraction: float,
    register_as: str,
    no_register: bool,
    tracking_uri: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search for the best parameters, train with them, and register that model.

    Trials are compared on a part of the training rows, never on the test rows. Every trial is a nested run; the best
    parameters are trained on all training rows, in a run like one of `penguins train`. Ctrl-C ends the search early
    and keeps the best so far.
    """
    settings = SearchParameters(trials, timeout, parallelism, seed, test_fraction, folds)
    from penguins import show, train, tune

    steps = ("Starting Spark", *train.SOURCE_STEPS, *tune.STEPS, *train.STEPS)
    with show.search_progress(steps, trials) as (report, on_trial):
        report("Starting Spark")
        register = None if no_register else register_as
        with _working_on(data, reachable_store(tracking_uri, register_as=register)) as spark:
            require_experiment(options["experiment"])
            tuned = tune.tune_from_source(
                spark, data, settings, register_as=register, report=report, on_trial=on_trial, **options
            )
    if as_json:
        click.echo(json.dumps(show.tuned_as_json(tuned)))
    else:
        show.tuned(tuned)


@main.command()
@model_option
@click.option("--version", type=int, help="The version to judge.  [default: the newest]")
@click.option("--data", help="Where the run's data is now, if it has moved.")
@click.option("--min-accuracy", type=float, default=POLICY.min_accuracy, show_default=True, help="At least.")
@click.option("--min-recall", type=float, default=POLICY.min_recall, show_default=True, help="At least, every class.")
@click.option("--tolerance", type=float, default=POLICY.tolerance, show_default=True,
    help="How much lower than the champion's a class's recall may be.",
)  # fmt: skip
@click.option("--min-test-rows", type=int, default=POLICY.min_test_rows, show_default=True, help="At least.")
@click.option("--replace-broken-champion", is_flag=True, help="Take a champion that can't be asked for none.")
@click.option("--judge-only", is_flag=True, help="Write the verdict down; `penguins deploy` then moves the champion.")
@click.option("--dry-run", is_flag=True, help="Show the verdict; move and write nothing.")
@tracking_option
@json_option
@verbose_option
def promote(
    model: str,
    version: int | None,
    data: str | None,
    min_accuracy: float,
    min_recall: float,
    tolerance: float,
    min_test_rows: int,
    tracking_uri: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Judge a version against the champion, and make it champion if it is better; exit code 3 if it isn't.

    Both are asked about the test rows of the version's own training run, made again and checked by their digest.
    """
    policy = Policy(min_accuracy, min_recall, tolerance, min_test_rows)
    from penguins import promote, registry, show

    with show.progress(("Starting Spark", *promote.STEPS)) as report:
        report("Starting Spark")
        with _working_on(data or config.DEFAULT_DATA, reachable_store(tracking_uri, has_models=True)) as spark:
            challenger = registry.newest(model) if version is None else registry.Version(model, version)
            result = promote.promote(spark, challenger, policy=policy, source=data, report=report, **options)
    if as_json:
        click.echo(json.dumps(show.promotion_as_json(result)))
    else:
        show.promoted(result)
    if not result.verdict.promote:
        sys.exit(ANSWER_IS_NO)


@main.command()
@model_option
@tracking_option
@json_option
@verbose_option
def rollback(model: str, tracking_uri: str | None, as_json: bool) -> None:
    """Make the previous champion champion again, and the champion the previous one."""
    from penguins import champion

    reachable_store(tracking_uri, has_models=True).activate()
    now, before = champion.roll_back(model)
    if as_json:
        click.echo(json.dumps({"model": model, "champion": now.number, "previous_champion": before.number}))
    else:
        click.echo(f"Version {now.number} of {model} is champion again; version {before.number} was until now.")


@main.command()
@click.option("--model", default=config.DEFAULT_MODEL_URI, show_default=True, help="models:/name@alias or name/number.")
@click.option("--data", required=True, help="A CSV or Parquet file, a folder, a URI or Volumes path, or a table name.")
@click.option("--output", required=True, help="A path that ends with .csv or .parquet, or a table name.")
@click.option("--overwrite", is_flag=True, help="Replace what is at the output, once the new rows are whole.")
@tracking_option
@json_option
@verbose_option
def predict(model: str, data: str, output: str, overwrite: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Score a file, a folder or a table of rows with a registered Spark model.

    Every row and column comes out, with the class, the probabilities, and what scored it when. A row that can't be
    scored has `reasons` instead of an answer. The label isn't needed.
    """
    from penguins import predict, show, target

    target.require_free(output, overwrite)
    with show.progress(("Starting Spark", *predict.STEPS)) as report:
        report("Starting Spark")
        with _working_on(data, reachable_store(tracking_uri, has_models=True)) as spark:
            target.require_lasting(spark, output)
            scored = predict.predict(spark, data, output, model_uri=model, overwrite=overwrite, report=report)
    if as_json:
        click.echo(json.dumps(show.scored_as_json(scored)))
    else:
        show.scored(scored)


@main.command()
@click.option(
    "--reference", default=config.DEFAULT_DATA, show_default=True,
    help="The rows to compare with, such as those that the model was trained on; a source as for train --data.",
)  # fmt: skip
@click.option("--current", required=True, help="The rows that arrived, with labels or without; a source as well.")
@click.option("--model", default=config.DEFAULT_MODEL_URI, show_default=True, help="The model to ask.")
@click.option("--no-model", is_flag=True, help="Compare the columns only.")
@click.option("--timestamp", metavar="COLUMN", help="The column of the current rows that has their time.")
@click.option("--window", help="How long a window of time is.  [default: 1 day, with --timestamp]")
@click.option(
    "--retrain-rule", "rule", metavar="'N of M'",
    help="Advise retraining when N of the last M windows breached, and the latest did.  "
    "[default: 2 of 3; 1 of 1 without --timestamp]",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="Write the report there: a page.html, or a folder.")
@click.option("--psi", "psi_drift", type=float, default=JUDGED.psi_drift, show_default=True, help="Drift from here on.")
@click.option(
    "--significance", type=float, default=JUDGED.significance, show_default=True,
    help="How improbable by chance a difference must be to count.",
)  # fmt: skip
@click.option(
    "--min-rows", "minimum_rows", type=int, default=JUDGED.minimum_rows, show_default=True,
    help="Judge the drift of no fewer values than this.",
)  # fmt: skip
@click.option(
    "--missing-increase", type=float, default=JUDGED.missing_increase, show_default=True,
    help="How much the share of missing values may grow.",
)  # fmt: skip
@click.option(
    "--out-of-range", type=float, default=JUDGED.out_of_range, show_default=True, help="The share that may be."
)
@click.option(
    "--new-categories", type=float, default=JUDGED.new_categories, show_default=True, help="The share that may be."
)
@click.option("--min-accuracy", "accuracy", type=float, default=JUDGED.accuracy, show_default=True, help="At least.")
@click.option(
    "--min-recall", "recall", type=float, default=JUDGED.recall, show_default=True, help="At least, of each class."
)
@experiment_option
@tracking_option
@json_option
@verbose_option
def monitor(
    reference: str,
    current: str,
    model: str,
    no_model: bool,
    timestamp: str | None,
    window: str | None,
    rule: str | None,
    output: Path | None,
    experiment: str | None,
    tracking_uri: str | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Compare what arrives with a reference, and exit with 3 when it has drifted or the model got worse.

    Counts each column of both in Spark, asks the model about all rows, and measures its quality where the current rows
    have labels: over all of them and window by window. Logs metrics, pictures and a report to one run.
    """
    from penguins import monitor, show
    from penguins.findings import Settings
    from penguins.source import is_small

    settings = Settings.of(config.Thresholds(**limits), timestamp, window, rule)
    monitor.require_free(output)
    larger = reference if is_small(current) else current
    asked = None if no_model else model
    with show.progress(("Starting Spark", *monitor.STEPS)) as report:
        report("Starting Spark")
        with _working_on(larger, reachable_store(tracking_uri)) as spark:
            require_experiment(experiment)
            result = monitor.monitor(
                *(spark, reference, current),
                model=asked,
                settings=settings,
                output=output,
                experiment=experiment,
                report=report,
            )
    if as_json:
        click.echo(json.dumps(show.with_page(result.as_dict(), result.run_id)))
    else:
        show.monitored(result)
    if result.failure is not None:
        raise (AnswerIsNoError if result.drifted else click.ClickException)(result.failure)
    if result.drifted:
        sys.exit(ANSWER_IS_NO)


@main.command("clean-up")
@click.option("--experiment", help="Look in this MLflow experiment only.  [default: in all]")
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option("--yes", is_flag=True, help="Don't ask first.")
@tracking_option
@json_option
@verbose_option
def clean_up(experiment: str | None, dry_run: bool, yes: bool, tracking_uri: str | None, as_json: bool) -> None:
    """List what killed commands have left, and clean it up after a yes.

    Their runs end as KILLED; the models that they were logging and their temporary folders are deleted, those beside
    outputs in the current folder, too. What a process that is still there is working on stays, and so does what one on
    another machine or in another container has begun.
    What penguins made in an Azure Machine Learning workspace is taken away by `penguins azureml clean-up`.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json asks nothing: add --yes or --dry-run.")
    from penguins import leftovers

    reachable_store(tracking_uri, has_models=True).activate()
    gone, unknown = leftovers.find(experiment)
    folders, fitted = leftovers.find_folders()
    gone += folders
    if not as_json:
        click.echo("\n".join(map(str, gone)) or "Killed commands have left nothing here.")
        for one in unknown:
            click.echo(f"{one}: that can't be known from here, so it stays.")
        for folder in fitted:
            click.echo(f"{folder} holds a model that was fitted and not logged: `penguins log {folder}` logs it.")
    if gone and not yes and not dry_run:
        click.confirm(f"Clean these {len(gone)} up?", abort=True)
    removed = [] if dry_run else leftovers.remove(gone)
    if as_json:
        listed = {"found": gone, "removed": removed, "unknown": unknown}
        answer = {name: [str(one) for one in ones] for name, ones in listed.items()}
        click.echo(json.dumps({**answer, "fitted": list(map(str, fitted))}))
    elif removed:
        click.echo(f"{len(removed)} cleaned up.")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@tracking_option
@json_option
@verbose_option
def log(folder: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Log a model that was kept in FOLDER because its training run could not be logged."""
    from dataclasses import asdict

    from penguins import outcome

    reachable_store(tracking_uri).activate()
    logged = outcome.log_kept(folder)
    if as_json:
        click.echo(json.dumps(asdict(logged)))
        return
    click.echo(f"Run      {logged.run_id}\nModel    {logged.model_uri}")
    if logged.version is not None:
        click.echo(f"Version  models:/{logged.registered_model}/{logged.version}")
    click.echo(f"{folder} is no longer needed.")


@main.command()
@click.argument("source", metavar="RUN|OUTPUT|FOLDER")
@click.option("--register-as", default=config.DEFAULT_MODEL, show_default=True, help="The registered model's name.")
@click.option("--description", default="", help="A sentence about the version.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the version; may be repeated.")
@click.option(
    "--custom", is_flag=True, help="Take any files in FOLDER or OUTPUT: Azure Machine Learning's custom model."
)
@experiment_option
@tracking_option
@json_option
@verbose_option
def register(
    source: str,
    register_as: str,
    description: str,
    tags: tuple[str, ...],
    custom: bool,
    experiment: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Make a model the next version of a registered model.

    The model is the one of a run (its id, or runs:/<id>/<path>; a job of Azure Machine Learning is the run of its
    name), an OUTPUT of such a job (azureml://jobs/<job>/outputs/<output>/paths/<path>), or a FOLDER in MLflow's
    format, such as `train --save` writes, which is logged to a run of its own first. The version is no champion:
    `penguins promote` judges that.
    """
    from penguins import azureml, registry

    named = dict(map(named_value, tags))
    reachable_store(tracking_uri, register_as=register_as).activate()
    if Path(source).is_dir():
        from_folder = registry.register_files if custom else registry.register_folder
        run_id, version = from_folder(source, register_as, experiment=experiment, description=description, tags=named)
    elif source.startswith(azureml.SCHEME):
        run_id, version = registry.register_output(
            source, register_as, custom=custom, description=description, tags=named
        )
    elif custom:
        raise click.UsageError("A custom model comes from a FOLDER or an OUTPUT.")
    else:
        run_id, version = registry.register_run(source, register_as, description=description, tags=named)
    if as_json:
        click.echo(json.dumps({"run_id": run_id, "registered_model": version.name, "version": version.number}))
    else:
        click.echo(f"Run      {run_id}\nVersion  {version.uri}")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=int, default=5000, show_default=True, help="The port to listen on.")
@tracking_option
@verbose_option
def ui(host: str, port: int, tracking_uri: str | None) -> None:
    """Open MLflow's own web page on the runs and models kept here; Ctrl-C stops it."""
    from penguins import ui
    from penguins.tracking import Tracking

    sys.exit(ui.serve(Tracking.from_environment(tracking_uri), host, port))


@main.command()
@click.option(
    "--data",
    default=config.DEFAULT_DATA,
    show_default=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The CSV file with the birds.",
)
@verbose_option
def demo(data: Path) -> None:
    """Tell the whole story: train, promote, serve, tune, score, watch, retrain, roll back.

    Everything it makes is kept in a new folder here, penguins-demo, with an MLflow store of its own.
    """
    from penguins import demo
    from penguins.tracking import Tracking

    folder = demo.new_folder(Path.cwd())
    with _working_on(str(data), Tracking.local(folder)) as spark:
        demo.tell(spark, data, folder)


for command in (
    *(serving_commands.serve, serving_commands.query, serving_commands.deploy, serving_commands.undeploy),
    *(azure_commands.azureml, azure_commands.databricks_workspace),
):
    main.add_command(command)


@contextlib.contextmanager
def _spark(data: str, meanwhile: Callable[[], None] | None = None) -> Iterator[SparkSession]:
    """A Spark session fit for the size of `data`."""
    from penguins.session import running_session
    from penguins.source import is_small

    with running_session(verbose=is_verbose(), brief=is_small(data), meanwhile=meanwhile) as spark:
        yield spark


@contextlib.contextmanager
def _working_on(data: str, store: Tracking) -> Iterator[SparkSession]:
    """A Spark session fit for the size of `data`, and MLflow set to the store."""
    from penguins.train import warm_up

    with _spark(data, partial(warm_up, store)) as spark:
        store.activate()
        yield spark
