# Databricks notebook source
# MAGIC %md
# MAGIC # Tune: let a search find the parameters
# MAGIC
# MAGIC How strongly should the regression be held back, and in which way? Instead of trying values by hand, this
# MAGIC notebook lets a search try them, keeps a record of every trial, and trains the final model with the best.
# MAGIC
# MAGIC Each step is one call of the package `penguins`, the same that `penguins tune` makes on a laptop.

# COMMAND ----------

# MAGIC %md
# MAGIC ## Parameters
# MAGIC
# MAGIC On a cluster several trials can run side by side: set `parallelism`. One at a time, the same seed gives the same
# MAGIC search again.

# COMMAND ----------

dbutils.widgets.text("data", "../data/penguins.csv", "CSV, Parquet, folder, Volumes path or table")
dbutils.widgets.text("trials", "20", "How many parameter sets to try")
dbutils.widgets.text("timeout", "3600", "Seconds after which no trial begins")
dbutils.widgets.text("parallelism", "1", "Trials at a time")
dbutils.widgets.text("seed", "42", "Which rows become test rows, and what the search tries")
dbutils.widgets.text("test_fraction", "0.3", "How many rows become test rows")
dbutils.widgets.text("register_as", "penguin_predictor", "Registered model, or catalog.schema.model; empty is none")
dbutils.widgets.text("experiment", "", "MLflow experiment; empty is the notebook's own")

# COMMAND ----------

from penguins import plots
from penguins.config import SearchParameters
from penguins.tune import tune_from_source

settings = SearchParameters(
    trials=int(dbutils.widgets.get("trials")),
    timeout=float(dbutils.widgets.get("timeout")),
    parallelism=int(dbutils.widgets.get("parallelism")),
    seed=int(dbutils.widgets.get("seed")),
    test_fraction=float(dbutils.widgets.get("test_fraction")),
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Search, train, register
# MAGIC
# MAGIC A quarter of the training rows is held back to compare the trials; the test rows are not looked at until the
# MAGIC choice is made, or the test would flatter the model. Cancel the cell when you have seen enough: the best
# MAGIC so far is trained and registered all the same.

# COMMAND ----------

tuned = tune_from_source(
    spark,
    dbutils.widgets.get("data"),
    settings,
    register_as=dbutils.widgets.get("register_as") or None,
    experiment=dbutils.widgets.get("experiment") or None,
    report=print,
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Look
# MAGIC
# MAGIC Many trials have the same accuracy, because there are few rows to be wrong about. The log loss tells them apart:
# MAGIC it also asks how sure the model was. It is balanced: the few Chinstraps count as much as the many Adelies.

# COMMAND ----------

display(tuned.table().sort_values(tuned.objective))
display(plots.search_history(tuned.history, tuned.objective))
display(plots.confusion_matrix(tuned.trained.confusion))

# COMMAND ----------

dbutils.jobs.taskValues.set("version", str(tuned.trained.version))
dbutils.notebook.exit(f"models:/{tuned.trained.registered_model}/{tuned.trained.version}")
