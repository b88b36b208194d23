"""The commands for Azure alone: parse, make one call, print."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penguins import config
from penguins.commands import (
    Commands,
    azure_client,
    azure_quiet,
    experiment_option,
    json_option,
    named_value,
    refuse_options,
    verbose_option,
    workspace_options,
)
from penguins.config import TrainingParameters
from penguins.errors import PenguinsError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from penguins.provision import Provisioned

DEFAULTS = TrainingParameters()
JUDGED = config.Thresholds()

name_option = click.option("--name", required=True, help="The workspace's name.")
subscription_option = click.option("--subscription", help="The subscription's id.  [default: as configured]")
resource_group_option = click.option("--resource-group", help="One that is there.  [default: as configured]")
region_option = click.option("--region", help="Where, such as westeurope.")
regions_option = click.option("--try-regions", metavar="A,B,C", help="Where, the first that has room.")
yes_option = click.option("--yes", is_flag=True, help="Don't ask first.")
schedule_option = click.option("--name", default="penguins-monitor", show_default=True, help="The schedule's name.")


@click.group(cls=Commands)
def azureml() -> None:
    """Work in an Azure Machine Learning workspace: train, watch, make workspaces, clean up."""


@azureml.command("submit-training")
@click.option("--compute", help="The compute of the workspace to train on; needed without --local.")
@click.option("--local", is_flag=True, help="Run the very same command here instead, with a job's variables.")
@click.option(
    "--data", default=config.DEFAULT_DATA, show_default=True,
    help="A file or folder here, which is uploaded, or data in Azure such as azureml:birds:1.",
)  # fmt: skip
@click.option("--max-iter", type=int, default=DEFAULTS.max_iter, show_default=True, help="Iterations at most.")
@click.option("--reg-param", type=float, default=DEFAULTS.reg_param, show_default=True, help="Regularization, from 0.")
@click.option(
    "--elastic-net-param", type=float, default=DEFAULTS.elastic_net_param, show_default=True, help="0 ridge, 1 lasso."
)
@click.option("--seed", type=int, default=DEFAULTS.seed, show_default=True, help="Which rows become test rows.")
@click.option("--test-fraction", type=float, default=DEFAULTS.test_fraction, show_default=True, help="How many.")
@experiment_option
@click.option("--register-as", default=config.DEFAULT_MODEL, show_default=True, help="The registered model's name.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the job; can be given again.")
@click.option("--no-wait", is_flag=True, help="Don't wait for the job's end.")
@click.option("--tracking-uri", "--tracking", envvar="MLFLOW_TRACKING_URI", help="With --local: where the run is kept.")
@workspace_options
@json_option
@verbose_option
def submit_training(
    compute: str | None,
    local: bool,
    data: str,
    experiment: str | None,
    register_as: str,
    tags: tuple[str, ...],
    no_wait: bool,
    tracking_uri: str | None,
    as_json: bool,
    subscription: str | None,
    resource_group: str | None,
    workspace: str | None,
    **parameters: Any,
) -> None:
    """Train on a compute of the workspace, as a job; the exit code is the job's.

    Sends the code that runs here, the data, and the versions that are installed here. Ctrl-C asks whether to end the
    job, too.
    """
    if local == (compute is not None):
        raise click.UsageError("Give --compute, or --local.")
    if local:
        refuse_options("--local", "no_wait", "subscription", "resource_group", "workspace")
    else:
        refuse_options("--compute", "tracking_uri")
    from penguins.submit import Training

    # MLFLOW_EXPERIMENT_ID is one of another store.
    where = experiment or config.DEFAULT_EXPERIMENT
    training = Training(data, TrainingParameters(**parameters), where, register_as, dict(map(named_value, tags)))
    if local:
        _train_here(training, tracking_uri, as_json)
        return
    from penguins import submit

    with azure_quiet():
        client = azure_client(subscription, resource_group, workspace)
        job = submit.submit(client, training, str(compute))
    if not as_json:
        click.echo(f"Job     {job.name}\nStudio  {job.studio_url}")
    if not no_wait:
        _follow(client, str(job.name))
    if as_json:
        click.echo(json.dumps({"job": job.name, "studio": job.studio_url, "ended": not no_wait}))
    elif not no_wait:
        click.echo(f"The job {job.name} is done: its run has the same id.")


def _train_here(training: Any, tracking_uri: str | None, as_json: bool) -> None:
    from penguins import submit
    from penguins.tracking import Tracking

    store = Tracking.from_environment(tracking_uri)
    store.require_reachable()
    run_id = submit.run_here(training, store)
    click.echo(json.dumps({"run_id": run_id}) if as_json else f"The command is done: its run is {run_id}.")


def _follow(client: MLClient, name: str) -> None:
    """Show a job's log on stderr until its end; after Ctrl-C, ask whether the job is to end, too."""
    from penguins import submit

    try:
        with contextlib.redirect_stdout(sys.__stderr__):
            submit.follow(client, name)
    except KeyboardInterrupt:
        if sys.stdin.isatty() and _end_it(name):
            with azure_quiet():
                submit.cancel(client, name)
            raise PenguinsError(f"The job {name} was cancelled.") from None
        raise PenguinsError(
            f"The job {name} goes on without you: its page in the studio shows it, and can cancel it."
        ) from None


def _end_it(name: str) -> bool:
    """What a person at the keyboard answers; asked on stderr, because stdout is for the result."""
    with contextlib.redirect_stdout(sys.__stderr__):
        return click.confirm(f"\nThe job {name} goes on. End it?", default=False)


@azureml.group(cls=Commands)
def monitor() -> None:
    """The monitor as a schedule of the workspace, with the thresholds of `penguins monitor`."""


def _refuse_quality(context: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None:
        raise click.UsageError(
            f"{option.opts[0]} is no more: Azure's performance signal takes a high accuracy for a breach and a low one "
            "for none; watch the quality with `penguins monitor`."
        )


def _no_quality(command: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse the options for a signal that an earlier version made."""
    for name in ("--truth", "--join-column", "--min-accuracy", "--min-recall"):
        command = click.option(name, hidden=True, expose_value=False, callback=_refuse_quality)(command)
    return command


@monitor.command("create")
@schedule_option
@click.option("--endpoint", default=config.DEFAULT_ENDPOINT, show_default=True, help="The endpoint to watch.")
@click.option("--deployment", required=True, help="The deployment to watch.")
@click.option(
    "--reference", required=True,
    help="The training data as `penguins predict` has scored it: a Parquet file here, or azureml:<name>:<version>.",
)  # fmt: skip
@click.option("--inputs", help="What the endpoint was asked.  [default: what the deployment collects]")
@click.option("--outputs", help="What it answered.  [default: what the deployment collects]")
@click.option("--hour", type=click.IntRange(0, 23), default=3, show_default=True, help="When, every day, in UTC.")
@click.option("--email", multiple=True, help="Who hears of a breach; can be given again.")
@click.option("--psi", "psi_drift", type=float, default=JUDGED.psi_drift, show_default=True, help="Drift from here on.")
@click.option(
    "--missing-increase", type=float, default=JUDGED.missing_increase, show_default=True,
    help="The share of missing values that may be.",
)  # fmt: skip
@click.option(
    "--out-of-range", type=float, default=JUDGED.out_of_range, show_default=True, help="The share that may be."
)
@click.option(
    "--new-categories", type=float, default=JUDGED.new_categories, show_default=True, help="The share that may be."
)
@_no_quality
@workspace_options
@json_option
@verbose_option
def monitor_create(
    name: str,
    endpoint: str,
    deployment: str,
    reference: str,
    inputs: str | None,
    outputs: str | None,
    hour: int,
    email: tuple[str, ...],
    as_json: bool,
    subscription: str | None,
    resource_group: str | None,
    workspace: str | None,
    **limits: Any,
) -> None:
    """Make the schedule, or change it.

    It watches the columns and the predicted classes; `penguins monitor` watches the quality, too.
    """
    thresholds = config.Thresholds(**limits)
    from penguins import monitor_schedule

    watched = monitor_schedule.Watched.collected(endpoint, deployment, reference)
    watched = replace(watched, inputs=inputs or watched.inputs, outputs=outputs or watched.outputs)
    with azure_quiet():
        client = azure_client(subscription, resource_group, workspace)
        known = monitor_schedule.create(client, watched, name=name, thresholds=thresholds, hour=hour, email=email)
    if as_json:
        click.echo(json.dumps({"schedule": name, "hour": hour, "reference": known}))
        return
    click.echo(f"{name} watches {endpoint} every day at {hour}:00 UTC, against {known}.")
    click.echo("It doesn't watch the quality of the answers: `penguins monitor` does.")


@monitor.command("disable")
@schedule_option
@workspace_options
@json_option
@verbose_option
def monitor_disable(name: str, as_json: bool, **place: str | None) -> None:
    """Let the schedule rest; `create` starts it again."""
    from penguins import monitor_schedule

    with azure_quiet():
        monitor_schedule.disable(azure_client(**place), name)
    click.echo(json.dumps({"schedule": name, "enabled": False}) if as_json else f"{name} rests.")


@monitor.command("delete")
@schedule_option
@workspace_options
@json_option
@verbose_option
def monitor_delete(name: str, as_json: bool, **place: str | None) -> None:
    """Delete the schedule; what it measured stays."""
    from penguins import monitor_schedule

    with azure_quiet():
        deleted = monitor_schedule.delete(azure_client(**place), name)
    said = f"{name} is deleted." if deleted else f"There is no {name}: nothing to delete."
    click.echo(json.dumps({"schedule": name, "deleted": deleted}) if as_json else said)


@azureml.command()
@click.option("--endpoint", default=config.DEFAULT_BATCH_ENDPOINT, show_default=True, help="The batch endpoint's name.")
@click.option("--data", required=True, help="A file or folder here, which is uploaded, or azureml:<name>:<version>.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The CSV file for the answers.")
@workspace_options
@json_option
@verbose_option
def score(endpoint: str, data: str, output: Path, as_json: bool, **place: str | None) -> None:
    """Have a batch endpoint score a file or a folder, and fetch every row; the job's log is shown on stderr.

    `penguins deploy --to azureml --kind batch` makes the endpoint.
    """
    from penguins import batch, show

    with azure_quiet():
        client = azure_client(**place)
    with contextlib.redirect_stdout(sys.__stderr__):
        result = batch.score(client, endpoint, data, output)
    if as_json:
        click.echo(json.dumps(show.batch_scored_as_json(result)))
    else:
        show.batch_scored(result)


@azureml.command("clean-up")
@yes_option
@workspace_options
@json_option
@verbose_option
def clean_up(yes: bool, as_json: bool, **place: str | None) -> None:
    """List what penguins made in the workspace, by its tag, and delete it after a yes.

    Versions of models, environments and references are archived, which can be taken back; jobs and runs stay.
    """
    _require_yes(yes, as_json)
    from penguins import clean_up, show

    with azure_quiet():
        client = azure_client(**place)
        found = clean_up.find(client)
    if not as_json:
        click.echo("\n".join(map(str, found)) or "There is nothing that penguins made.")
    if found and not yes:
        click.confirm(f"Delete these {len(found)}?", abort=True)
    with show.progress([f"Removing {thing}" for thing in found] or [""]) as report, azure_quiet():
        clean_up.remove(client, found, report=report)
    if as_json:
        click.echo(json.dumps({"removed": [str(thing) for thing in found]}))
    elif found:
        click.echo(f"{len(found)} removed.")


@azureml.group("workspace", cls=Commands)
def azureml_workspace() -> None:
    """Make and delete Azure Machine Learning workspaces."""


@azureml_workspace.command("create")
@name_option
@subscription_option
@resource_group_option
@region_option
@regions_option
@json_option
@verbose_option
def workspace_create(
    name: str,
    subscription: str | None,
    resource_group: str | None,
    region: str | None,
    try_regions: str | None,
    as_json: bool,
) -> None:
    """Make a workspace with its storage, key vault and Application Insights, in a resource group that is there."""
    regions = _regions(region, try_regions)
    from penguins import azureml, provision, show

    with show.progress([f"Making {name} in {one}" for one in regions]) as report, azure_quiet():
        place = azureml.workspace(subscription, resource_group, name)
        made = provision.create_azureml(azureml.client(place), place.resource_group, name, regions, report=report)
    _provisioned(made, as_json)


@azureml_workspace.command("delete")
@name_option
@subscription_option
@resource_group_option
@click.option(
    "--with-dependents", is_flag=True, help="Delete its storage, key vault, Application Insights and registry, too."
)
@yes_option
@json_option
@verbose_option
def workspace_delete(
    name: str,
    subscription: str | None,
    resource_group: str | None,
    with_dependents: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete a workspace with its runs, models, endpoints, computes and schedules."""
    _require_yes(yes, as_json)
    from penguins import azureml, provision

    place = azureml.workspace(subscription, resource_group, name)
    also = "Its storage, key vault, Application Insights and container registry go with it"
    stays = "Its storage, key vault, Application Insights and container registry stay, and may cost"
    _confirm(
        yes,
        f"{place} is deleted with all its runs, models, endpoints, computes and schedules. "
        f"{also if with_dependents else stays}.",
    )
    with azure_quiet():
        deleted = provision.delete_azureml(azureml.client(place), name, with_dependents=with_dependents)
    _deleted(name, deleted, as_json)


@click.group("databricks-workspace", cls=Commands)
def databricks_workspace() -> None:
    """Make and delete Azure Databricks workspaces."""


@databricks_workspace.command("create")
@name_option
@subscription_option
@resource_group_option
@region_option
@regions_option
@json_option
@verbose_option
def databricks_create(
    name: str,
    subscription: str | None,
    resource_group: str | None,
    region: str | None,
    try_regions: str | None,
    as_json: bool,
) -> None:
    """Make a Premium workspace in a resource group that is there; a trial lacks what serving needs."""
    regions = _regions(region, try_regions)
    from penguins import azureml, provision, show

    with show.progress([f"Making {name} in {one}" for one in regions]) as report, azure_quiet():
        place = azureml.workspace(subscription, resource_group, name)
        client = azureml.databricks_client(place)
        made = provision.create_databricks(client, place, regions, report=report)
    _provisioned(made, as_json)


@databricks_workspace.command("delete")
@name_option
@subscription_option
@resource_group_option
@yes_option
@json_option
@verbose_option
def databricks_delete(
    name: str, subscription: str | None, resource_group: str | None, yes: bool, as_json: bool
) -> None:
    """Delete a workspace with its notebooks, jobs, clusters, and its managed resource group."""
    _require_yes(yes, as_json)
    from penguins import azureml, provision

    place = azureml.workspace(subscription, resource_group, name)
    _confirm(
        yes,
        f"{place} is deleted with all its notebooks, jobs, clusters and endpoints. "
        "The managed resource group goes with it, and what is in its storage.",
    )
    with azure_quiet():
        deleted = provision.delete_databricks(azureml.databricks_client(place), place)
    _deleted(name, deleted, as_json)


def _regions(region: str | None, try_regions: str | None) -> list[str]:
    if (region is None) == (try_regions is None):
        raise click.UsageError("Give --region, or --try-regions.")
    regions = [one.strip() for one in (region or try_regions or "").split(",")]
    if not all(regions):
        raise click.UsageError("--try-regions is a list such as westeurope,northeurope.")
    return regions


def _require_yes(yes: bool, as_json: bool) -> None:
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: add --yes.")


def _confirm(yes: bool, what: str) -> None:
    if not yes:
        click.echo(what)
        click.confirm("Delete it?", abort=True)


def _provisioned(made: Provisioned, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(made)))
        return
    for region in made.tried:
        click.echo(f"There was no room in {region}.")
    click.echo(f"{made.name} {'is made' if made.created else 'was there already'}, in {made.region}.")


def _deleted(name: str, deleted: bool, as_json: bool) -> None:
    said = f"{name} is deleted." if deleted else f"There is no {name}: nothing to delete."
    click.echo(json.dumps({"workspace": name, "deleted": deleted}) if as_json else said)
