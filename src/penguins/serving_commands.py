"""The commands that serve: a server here, endpoints on Databricks and Azure. Each parses, makes one call, prints."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from penguins import config
from penguins.commands import (
    WORKSPACE,
    Command,
    azure_client,
    azure_quiet,
    is_verbose,
    json_option,
    model_option,
    reachable_store,
    refuse_options,
    tracking_option,
    verbose_option,
    workspace_options,
)
from penguins.config import AzureServing, BatchServing, ServingParameters
from penguins.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from penguins.deploy import Deployed

PLATFORMS = ("databricks", "azureml")

SERVING = ServingParameters()
AZURE = AzureServing()

DATABRICKS_SETTINGS = ("workload_size", "scale_to_zero", "only_existing")
AZURE_SETTINGS = ("kind", "compute", "instance_type", "instances", "auth", "app_insights", "own_script", "collect")
ONLINE_SETTINGS = ("traffic", "instance_type", "auth", "app_insights", "own_script", "collect")
"""The options of `deploy` that are for one platform alone, and those that no batch endpoint has."""

to_option = click.option("--to", type=click.Choice(PLATFORMS), required=True, help="Which platform.")
endpoint_option = click.option(
    "--endpoint", help=f"Its name.  [default: {config.DEFAULT_ENDPOINT}; {config.DEFAULT_BATCH_ENDPOINT} for a batch]"
)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each limit of a server."""
    for limit in reversed(fields(Limits)):
        # MLflow's own server lets this variable decide.
        variable = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT" if limit.name == "answer_timeout" else None
        command = click.option(
            f"--{limit.name.replace('_', '-')}", type=type(limit.default), default=limit.default, envvar=variable,
            show_default=True, help=limit.metadata["help"],
        )(command)  # fmt: skip
    return command


@click.command(cls=Command)
@click.option("--model", default=config.DEFAULT_MODEL_URI, show_default=True, help="Which version to serve.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=int, default=5000, show_default=True, help="The port to listen on; 0 is any free one.")
@limit_options
@click.option("--until-stdin-ends", is_flag=True, hidden=True, help="Stop at the end of standard input, too.")
@tracking_option
@json_option
@verbose_option
def serve(
    model: str,
    host: str,
    port: int,
    until_stdin_ends: bool,
    tracking_uri: str | None,
    as_json: bool,
    **limits: float,
) -> None:
    """Serve a registered version over HTTP, without Spark and without a JVM; Ctrl-C stops it.

    The server takes and gives what MLflow's own does, within limits. An alias is looked up once: the version it stands
    for is served until the end, wherever the alias moves.
    """
    from penguins import serve, show
    from penguins.tracking import Tracking

    store = Tracking.from_environment(tracking_uri)
    ready = show.serving_as_json if as_json else show.serving
    serve.serve(
        *(store, model, host, port, ready),
        warn=lambda sentence: click.echo(f"Warning: {sentence}", file=sys.__stderr__),
        limits=Limits(**limits),  # type: ignore[arg-type]  # each option has its field's type
        verbose=is_verbose(),
        until_stdin_ends=until_stdin_ends,
    )


@click.command(cls=Command)
@to_option
@model_option
@click.option("--version", type=int, help="The version to serve.  [default: the champion]")
@endpoint_option
@click.option(
    "--size", "workload_size", type=click.Choice(config.WORKLOAD_SIZES), default=SERVING.workload_size,
    show_default=True, help="Databricks: of the machines behind the endpoint.",
)  # fmt: skip
@click.option(
    "--scale-to-zero/--always-on", default=SERVING.scale_to_zero, show_default=True, help="Databricks: when idle."
)
@click.option(
    "--kind", type=click.Choice(config.AZURE_KINDS), default=AZURE.kind, show_default=True,
    help="Azure: managed for test, kubernetes for production, batch for files.",
)  # fmt: skip
@click.option("--compute", help="Azure: the attached Kubernetes cluster, or the batch's compute cluster.")
@click.option("--instance-type", help="Azure: the size of a machine.  [default: Standard_DS3_v2; the cluster's own]")
@click.option("--instances", type=int, help="Azure: machines, or replicas.  [default: as many as serve now, or 1]")
@click.option(
    "--auth", type=click.Choice(config.AZURE_AUTH), default=AZURE.auth, show_default=True,
    help="Azure: how the endpoint knows who asks.",
)  # fmt: skip
@click.option(
    "--app-insights/--no-app-insights", default=AZURE.app_insights, show_default=True,
    help="Azure: send requests and logs to Application Insights.",
)  # fmt: skip
@click.option(
    "--own-script/--no-code", default=AZURE.own_script, show_default=True,
    help="Azure: answer bad rows with 400 and a sentence, by our scoring script; Azure's own has 500 and none.",
)  # fmt: skip
@click.option(
    "--collect/--no-collect", default=AZURE.collect, show_default=True,
    help="Azure: keep what is asked and answered in the workspace, for monitoring.",
)  # fmt: skip
@click.option(
    "--traffic", type=int, default=SERVING.traffic, show_default=True,
    help="Percent of the requests for this version; with all of them it becomes champion.",
)  # fmt: skip
@click.option("--timeout", type=float, help="Seconds to wait for a change.  [default: 1800; 3600 on Azure]")
@click.option(
    "--only-existing", is_flag=True, help="Databricks: without an endpoint, make none: the version becomes champion."
)
@workspace_options
@tracking_option
@json_option
@verbose_option
def deploy(to: str, model: str, version: int | None, tracking_uri: str | None, as_json: bool, **options: Any) -> None:
    """Serve a version on an endpoint, and make it champion once the endpoint gives the right answers.

    The version is the champion or one that the gate accepted (`penguins promote --judge-only`). It is started beside
    what is served, asked about rows whose answers are known, and only then gets its share of the traffic. On a wrong
    answer, a failure or a timeout everything is put back, and the champion stays.

    With `--kind batch` the endpoint scores files with the version from then on; the champion stays.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if to == "databricks":
        refuse_options("--to databricks", *AZURE_SETTINGS, *WORKSPACE)
        result = _deploy_to_databricks(model, version, tracking_uri, given)
    else:
        refuse_options("--to azureml", *DATABRICKS_SETTINGS)
        if given["kind"] == "batch":
            _deploy_batch(model, version, tracking_uri, given, as_json)
            return
        result = _deploy_to_azureml(model, version, tracking_uri, given)
    from penguins import show

    if as_json:
        click.echo(json.dumps(show.deployed_as_json(result)))
    else:
        show.deployed(result)
        if to == "azureml" and not given["own_script"]:
            click.echo("Azure's own scoring script answers a row that the model refuses with 500, without a sentence.")


def _deploy_to_databricks(model: str, version: int | None, tracking_uri: str | None, given: dict[str, Any]) -> Deployed:
    names = ("workload_size", "scale_to_zero", "traffic", "timeout")
    settings = ServingParameters(**{name: given[name] for name in names if name in given})
    from penguins import deploy, registry, show

    with show.progress((*deploy.STEPS, deploy.PUTTING_BACK)) as report:
        report(deploy.STEPS[0])
        reachable_store(tracking_uri, has_models=True).activate()
        chosen = registry.version_or_champion(model, version)
        return deploy.deploy(
            chosen,
            name=given.get("endpoint", config.DEFAULT_ENDPOINT),
            settings=settings,
            only_existing=given["only_existing"],
            report=report,
        )


def _deploy_to_azureml(model: str, version: int | None, tracking_uri: str | None, given: dict[str, Any]) -> Deployed:
    names = (*AZURE_SETTINGS, "traffic", "timeout")
    settings = AzureServing(**{name: given[name] for name in names if name in given})
    from penguins import deploy_azureml, registry, show

    name = given.get("endpoint", config.DEFAULT_ENDPOINT)
    with show.progress((*deploy_azureml.STEPS, deploy_azureml.PUTTING_BACK)) as report, azure_quiet():
        report(deploy_azureml.STEPS[0])
        client = azure_client(**_place(given))
        reachable_store(tracking_uri, has_models=True).activate()
        chosen = registry.version_or_champion(model, version)
        return deploy_azureml.deploy(chosen, client=client, name=name, settings=settings, report=report)


def _deploy_batch(
    model: str, version: int | None, tracking_uri: str | None, given: dict[str, Any], as_json: bool
) -> None:
    refuse_options("--kind batch", *ONLINE_SETTINGS)
    if "compute" not in given:
        raise click.UsageError("A batch endpoint runs on a compute cluster of the workspace: name it (--compute).")
    from penguins import batch, registry, show

    name = given.get("endpoint", config.DEFAULT_BATCH_ENDPOINT)
    settings = BatchServing(**{name: given[name] for name in ("compute", "instances", "timeout") if name in given})
    with show.progress(batch.STEPS) as report, azure_quiet():
        client = azure_client(**_place(given))
        reachable_store(tracking_uri, has_models=True).activate()
        chosen = registry.version_or_champion(model, version)
        batch.deploy(chosen, client=client, name=name, settings=settings, report=report)
    if as_json:
        click.echo(json.dumps({"model": chosen.name, "version": chosen.number, "endpoint": name}))
    else:
        click.echo(f"{name} scores with version {chosen.number} of {chosen.name}.")


def _place(given: dict[str, Any]) -> dict[str, str | None]:
    return {name: given.get(name) for name in WORKSPACE}


@click.command(cls=Command)
@to_option
@click.option(
    "--kind", type=click.Choice(config.AZURE_KINDS), default=AZURE.kind, show_default=True,
    help="Azure: what it was deployed as.",
)  # fmt: skip
@endpoint_option
@workspace_options
@json_option
@verbose_option
def undeploy(to: str, kind: str, endpoint: str | None, as_json: bool, **place: str | None) -> None:
    """Delete an endpoint; the model and its versions stay."""
    name = endpoint or (config.DEFAULT_BATCH_ENDPOINT if kind == "batch" else config.DEFAULT_ENDPOINT)
    if to == "databricks":
        refuse_options("--to databricks", "kind", *WORKSPACE)
        from penguins import deploy

        deleted = deploy.undeploy(name)
    else:
        from penguins import batch, deploy_azureml

        with azure_quiet():
            client = azure_client(**place)
            deleted = (batch if kind == "batch" else deploy_azureml).undeploy(name, client=client)
    if as_json:
        click.echo(json.dumps({"endpoint": name, "deleted": deleted}))
    else:
        click.echo(f"{name} is deleted." if deleted else f"There is no {name}: nothing to delete.")


@click.command(cls=Command)
@click.option("--url", help=f"The scoring server's address.  [default: {config.DEFAULT_URL}]")
@click.option("--endpoint", help="A serving endpoint to ask instead.")
@click.option(
    "--to", type=click.Choice(PLATFORMS), default="databricks", show_default=True, help="The endpoint's platform."
)
@click.option("--record", help="A JSON object with the columns of one row.  [default: the lab's bird]")
@click.option("--data", help="A CSV, Parquet or JSON file with the rows to ask about.")
@workspace_options
@json_option
@verbose_option
def query(
    url: str | None,
    endpoint: str | None,
    to: str,
    record: str | None,
    data: str | None,
    as_json: bool,
    **place: str | None,
) -> None:
    """Ask a scoring server or an endpoint about a row or a file of rows, and show its answers."""
    if record is not None and data is not None:
        raise click.UsageError("Give --record or --data, not both.")
    if url is not None and endpoint is not None:
        raise click.UsageError("Give --url or --endpoint, not both.")
    if to == "azureml" and endpoint is None:
        raise click.UsageError("Name the endpoint to ask (--endpoint).")
    from penguins import query, show
    from penguins.spec import LAB_REQUEST

    rows = query.read(data) if data is not None else query.parse(record or json.dumps(LAB_REQUEST))
    answers = query.ask(url or config.DEFAULT_URL, rows) if endpoint is None else _ask(to, endpoint, rows, place)
    if as_json:
        click.echo(json.dumps({"predictions": answers.to_dict("records")}))
    else:
        show.answers(rows, answers)


def _ask(to: str, endpoint: str, rows: pd.DataFrame, place: dict[str, str | None]) -> pd.DataFrame:
    """What an endpoint of one of the platforms answers."""
    if to == "databricks":
        from penguins.endpoint import ask, workspace

        return ask(workspace(), endpoint, rows)
    from penguins import online_endpoint

    with azure_quiet():
        return online_endpoint.ask(azure_client(**place), endpoint, rows)
