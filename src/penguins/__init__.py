"""A Spark ML model from a CSV file to a gated, served, monitored endpoint.

Importing this package loads neither Spark nor MLflow; its modules do when they are used.
"""

__version__ = "0.1.0"
