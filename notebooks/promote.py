# Databricks notebook source
# MAGIC %md
# MAGIC # Promote: is the new model good enough to be the champion?
# MAGIC
# MAGIC A registered version is only a candidate. This notebook asks it and the champion about the same birds, those
# MAGIC that its own training kept for the test, and lets it take the champion's place only if it is better.
# MAGIC
# MAGIC Each step is one call of the package `penguins`, the same that `penguins promote` makes on a laptop.

# COMMAND ----------

# MAGIC %md
# MAGIC ## Parameters
# MAGIC
# MAGIC An empty version means the newest one. The floors are the package's own; the lab's two models fall below them,
# MAGIC because they call every third Chinstrap an Adelie.

# COMMAND ----------

dbutils.widgets.text("model", "penguin_predictor", "Registered model, or catalog.schema.model")
dbutils.widgets.text("version", "", "Version to judge; empty is the newest")
dbutils.widgets.text("data", "", "Where the run's data is now; empty is where it was")
dbutils.widgets.text("min_accuracy", "0.95", "Lowest accuracy")
dbutils.widgets.text("min_recall", "0.85", "Lowest recall of every class")
dbutils.widgets.text("judge_only", "no", "yes: leave the champion to the notebook deploy")
dbutils.widgets.text("tolerance", "0.05", "How much lower than the champion's a recall may be")

# COMMAND ----------

import pandas as pd

from penguins import registry
from penguins.config import Policy
from penguins.promote import promote

model = dbutils.widgets.get("model")
version = int(dbutils.widgets.get("version") or registry.newest(model).number)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Judge
# MAGIC
# MAGIC The test rows are made again from what the training run logged (source, fraction, seed) and checked by their
# MAGIC digest. What can't be judged is refused. The verdict is kept for yes and for no: as a run, and as tags on the
# MAGIC version.

# COMMAND ----------

promotion = promote(
    spark,
    registry.Version(model, version),
    source=dbutils.widgets.get("data") or None,
    judge_only=dbutils.widgets.get("judge_only") == "yes",
    policy=Policy(
        min_accuracy=float(dbutils.widgets.get("min_accuracy")),
        min_recall=float(dbutils.widgets.get("min_recall")),
        tolerance=float(dbutils.widgets.get("tolerance")),
    ),
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Look
# MAGIC
# MAGIC Both models on the same rows, and the reasons. To go back to the champion before: `champion.roll_back(model)`.

# COMMAND ----------

display(pd.DataFrame(promotion.metrics).rename_axis("measure").reset_index())
display(pd.DataFrame({"reason": promotion.verdict.reasons}))

# COMMAND ----------

dbutils.jobs.taskValues.set("verdict", "yes" if promotion.verdict.promote else "no")
dbutils.notebook.exit("accepted" if promotion.verdict.promote else "refused")
