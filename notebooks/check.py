# Databricks notebook source
# MAGIC %md
# MAGIC # Check: what can a model learn from?
# MAGIC
# MAGIC Before anything is trained, look at the birds. The lab drops every row with a gap and goes on; here a row that
# MAGIC can't be used is set aside and says why, because next month it may not be two birds but half of them.
# MAGIC
# MAGIC Each step is one call of the package `penguins`; `penguins check` does the same on a laptop.

# COMMAND ----------

# MAGIC %md
# MAGIC ## Parameters
# MAGIC
# MAGIC Where the observations are. On Databricks that is usually a table or a path under `/Volumes`.

# COMMAND ----------

dbutils.widgets.text("data", "../data/penguins.csv", "CSV, Parquet, folder, Volumes path or table")

# COMMAND ----------

import pandas as pd

from penguins import data

source = dbutils.widgets.get("data")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Read
# MAGIC
# MAGIC The columns are declared, never guessed: `BodyMass` is a number in grams whatever the first rows look like. A
# MAGIC line that doesn't fit is kept as it was written, so that it can be shown.

# COMMAND ----------

observations = data.read(spark, source)
display(observations.limit(20))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Set aside what can't be used
# MAGIC
# MAGIC Every row is in exactly one of the two results. Look at the reasons: gaps come from the field, text in a number
# MAGIC from a spreadsheet, a value out of range from a scale set to pounds.

# COMMAND ----------

accepted, quarantined = data.check(observations)
set_aside, reasons = data.count_reasons(quarantined)
display(quarantined)
display(pd.Series(reasons, dtype=int).rename_axis("reason").reset_index(name="rows"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Look
# MAGIC
# MAGIC Gentoos live on Biscoe only, Chinstraps on Dream only: the island alone tells much. There are half as many
# MAGIC Chinstraps as Adelies, so a model can miss many of them and still have a high accuracy.

# COMMAND ----------

display(accepted.groupBy("Island").pivot("Species").count().orderBy("Island"))
display(accepted.summary("count", "min", "50%", "max"))

# COMMAND ----------

dbutils.notebook.exit(f"{accepted.count()} rows accepted, {set_aside} set aside")
