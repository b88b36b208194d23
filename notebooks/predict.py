# Databricks notebook source
# MAGIC %md
# MAGIC # Predict: answers for many birds at once
# MAGIC
# MAGIC The champion scores a file, a folder or a table. Every bird comes out: with its species and the probabilities,
# MAGIC or with the reasons why the model has no answer.
# MAGIC
# MAGIC The same call as `penguins predict` makes on a laptop.

# COMMAND ----------

dbutils.widgets.text("data", "../data/penguins.csv", "CSV, Parquet, folder, Volumes path or table")
dbutils.widgets.text("output", "penguins_scored", "Table, or a path that ends with .csv or .parquet")
dbutils.widgets.text("model", "models:/penguin_predictor@champion", "Which version scores")

# COMMAND ----------

import pandas as pd

from penguins import data, predict

output = dbutils.widgets.get("output")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Score
# MAGIC
# MAGIC The alias is asked for once, and the version it stands for is stamped on every row: who moves the champion in
# MAGIC the meantime changes the next batch, not this one. The output is replaced when the new one is whole.

# COMMAND ----------

scored = predict.predict(
    spark, dbutils.widgets.get("data"), output, model_uri=dbutils.widgets.get("model"), overwrite=True
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Look
# MAGIC
# MAGIC How many of each species, what the model could not score and why, and a few of the rows.

# COMMAND ----------

display(pd.Series(scored.classes).rename_axis("class").reset_index(name="rows"))
display(pd.Series(scored.reasons, dtype=int).rename_axis("reason").reset_index(name="rows"))
display(data.read(spark, output, labelled=False).limit(20))

# COMMAND ----------

dbutils.notebook.exit(f"{scored.rows} rows by {scored.version.uri}: {scored.scored} scored, {scored.unscored} not")
