"""Open MLflow's own user interface on the store that the commands write to."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from penguins.serve import listen
from penguins.tracking import Tracking


def serve(store: Tracking, host: str, port: int) -> int:
    """Run `mlflow ui` until it is stopped, and return its exit code; of a server, only say where its page is.

    Raises ServerError when the port is taken, StoreError when nothing was ever tracked here.
    """
    if store.page is not None:
        click.echo(f"The runs are at {store.page} already: a server has its own page.")
        return 0
    if store.tracking_uri.startswith("databricks"):
        click.echo("The runs are in the Databricks workspace already: its page Experiments shows them.")
        return 0
    store.require()
    # Only to see that the port is free: `mlflow ui` opens its own.
    listen(host, port).close()
    click.echo(f"The runs are at http://{host}:{port} (Ctrl-C stops)")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    # Not as an argument, because a database's URI may hold a password, which a list of processes would show.
    environment = {"MLFLOW_BACKEND_STORE_URI": store.tracking_uri, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The server got the same Ctrl-C and is already on its way out.
        process.wait()
        return 0
