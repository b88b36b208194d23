# Databricks notebook source
# MAGIC %md
# MAGIC # Deploy: the champion answers over HTTP
# MAGIC
# MAGIC A model that nobody can ask is a file. This notebook puts a version on the serving endpoint `predict-penguin`,
# MAGIC with no Spark and no Java behind its answers.
# MAGIC
# MAGIC It makes the same call as `penguins deploy --to databricks` on a laptop. On a laptop with no workspace,
# MAGIC `penguins serve` answers the same questions.

# COMMAND ----------

# MAGIC %md
# MAGIC ## Parameters
# MAGIC
# MAGIC An empty version means the champion. Another one must have been accepted by the gate: run the notebook `promote`
# MAGIC with `judge_only` before. Give it 10 percent of the traffic first if you want to watch it, and all of it later.

# COMMAND ----------

dbutils.widgets.text("model", "penguin_predictor", "Registered model, or catalog.schema.model")
dbutils.widgets.text("version", "", "Version to serve; empty is the champion")
dbutils.widgets.text("endpoint", "predict-penguin", "Serving endpoint")
dbutils.widgets.text("size", "Small", "Small, Medium or Large")
dbutils.widgets.text("traffic", "100", "Percent of the requests for this version")
dbutils.widgets.text("only_existing", "no", "yes: where there is no endpoint, make none")

# COMMAND ----------

from penguins import endpoint, flavor, registry
from penguins.config import ServingParameters
from penguins.deploy import deploy

name = dbutils.widgets.get("endpoint")
version = registry.version_or_champion(dbutils.widgets.get("model"), dbutils.widgets.get("version"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Start, ask, move
# MAGIC
# MAGIC The version starts beside the one that is served, with no traffic. It is asked about birds whose answers are
# MAGIC known; only if all are right it gets its share, and with all of the traffic it becomes champion. Otherwise
# MAGIC everything is put back as it was. This takes some minutes, most of them to build an image.

# COMMAND ----------

deployed = deploy(
    version,
    name=name,
    settings=ServingParameters(workload_size=dbutils.widgets.get("size"), traffic=int(dbutils.widgets.get("traffic"))),
    only_existing=dbutils.widgets.get("only_existing") == "yes",
    report=print,
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Ask
# MAGIC
# MAGIC The rows that the model carries as its example. Where there is no endpoint yet, the model answers here.

# COMMAND ----------

examples, expected = flavor.known_answers(version.uri)
display(endpoint.ask(endpoint.workspace(), name, examples) if deployed.endpoint else expected)

# COMMAND ----------

dbutils.notebook.exit(f"{deployed.version.uri} with {deployed.traffic} percent of {name}")
