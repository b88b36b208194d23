# Databricks notebook source
# MAGIC %md
# MAGIC # Monitor: are these still the birds that the model knows?
# MAGIC
# MAGIC A model is only as good as the likeness of what it is asked about to what it has learned from. This notebook
# MAGIC compares rows that arrived with a reference, column by column, asks the champion about both, and measures its
# MAGIC quality where the true species became known.
# MAGIC
# MAGIC It makes the same call as `penguins monitor` on a laptop.

# COMMAND ----------

# MAGIC %md
# MAGIC ## Parameters
# MAGIC
# MAGIC `timestamp` names the column that has the time of each current row; without one, all rows are one window. An
# MAGIC empty threshold is the package's own: a table whose best model is right in 81 of 100 rows needs an `accuracy`
# MAGIC below that.

# COMMAND ----------

dbutils.widgets.text("reference", "../data/penguins.csv", "What to compare with: file, folder or table")
dbutils.widgets.text("current", "../data/penguins.csv", "What arrived: file, folder or table")
dbutils.widgets.text("model", "models:/penguin_predictor@champion", "Model to ask; empty for none")
dbutils.widgets.text("experiment", "", "MLflow experiment; empty is the notebook's own")
dbutils.widgets.text("timestamp", "", "Column with the time")
dbutils.widgets.text("window", "", "How long a window is, such as 1 day")
dbutils.widgets.text("retrain_rule", "", "Advise retraining when, such as 2 of 3")
dbutils.widgets.text("accuracy", "", "Accuracy, at least")
dbutils.widgets.text("recall", "", "Recall of each class, at least")
dbutils.widgets.text("psi_drift", "", "PSI that is drift")
dbutils.widgets.text("missing_increase", "", "How much the share of missing values may grow")
dbutils.widgets.text("out_of_range", "", "Share of values out of range, at most")
dbutils.widgets.text("new_categories", "", "Share of new categories, at most")

# COMMAND ----------

import json

from penguins import page, plots
from penguins.config import Thresholds
from penguins.findings import Settings
from penguins.monitor import monitor

names = ("accuracy", "recall", "psi_drift", "missing_increase", "out_of_range", "new_categories")
settings = Settings.of(
    Thresholds.of({name: dbutils.widgets.get(name) for name in names}),
    timestamp=dbutils.widgets.get("timestamp") or None,
    window=dbutils.widgets.get("window") or None,
    rule=dbutils.widgets.get("retrain_rule") or None,
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Compare, judge, log
# MAGIC
# MAGIC Spark counts, window by window; the statistics are arithmetic on the counts. One MLflow run keeps the numbers, a
# MAGIC picture and a page to read.

# COMMAND ----------

result = monitor(
    spark,
    dbutils.widgets.get("reference"),
    dbutils.widgets.get("current"),
    model=dbutils.widgets.get("model") or None,
    settings=settings,
    experiment=dbutils.widgets.get("experiment") or None,
)
findings = result.findings

# COMMAND ----------

# MAGIC %md
# MAGIC ## Look
# MAGIC
# MAGIC A population stability index (PSI) of 0.25 or more, above what chance gives, is drift. Look at the picture
# MAGIC before the number: a scale set to pounds looks different from a hungry year.

# COMMAND ----------

display(page.columns_table(findings))
display(page.windows_table(findings))
display(plots.drift(findings.whole.drifts, findings.verdicts))

# COMMAND ----------

dbutils.jobs.taskValues.set("retrain", "yes" if result.retrain else "no")
verdict = {"drifted": result.drifted, "retrain": result.retrain, "breaches": findings.breaches}
dbutils.notebook.exit(json.dumps({**verdict, "failure": result.failure}))
