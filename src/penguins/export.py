"""The fitted pipeline as an ONNX graph: the same arithmetic in double precision, without a JVM.

The graph is built node by node, because the SparkML converter that exists gives a multinomial regression
per-class logistic values instead of a softmax, and so other probabilities than Spark's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from penguins.errors import ModelError, listed
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import LogisticRegressionModel
    from pyspark.ml.feature import MinMaxScalerModel, StringIndexerModel, VectorAssembler

# Old enough for every onnxruntime that the package allows, new enough for all the operators used here.
OPSET = 17
ML_OPSET = 3
IR_VERSION = 8

LARGEST_FILE = 2**31 - 1
"""Bytes that a graph in one file can have (protobuf's limit); MLflow's scoring needs it in one file."""

METADATA = "penguins"
"""The key in the graph's metadata that says, as JSON, what goes in and what comes out."""


def to_onnx(model: PipelineModel, spec: Spec = PENGUINS) -> ModelProto:
    """Turn a pipeline that `pipeline.build` made, once fitted, into an ONNX graph.

    Inputs: one column of shape (rows, 1) per feature, text or double. Outputs: `prediction` (rows,), the class
    code, and `probabilities` (rows, classes). Raises ModelError for a pipeline with other stages,
    or one too large for a file.
    """
    import onnx
    from onnx import TensorProto, helper

    categories = known_categories(model, spec)
    _, scaler, regression = _stages(model, spec)
    constants: dict[str, npt.NDArray[np.float64]] = _scaling(scaler)
    nodes = [node for name, labels in categories.items() for node in _index(name, labels)]
    nodes += _scale([numeric.name for numeric in spec.numeric])
    nodes.append(
        helper.make_node("Concat", [*(f"{name}.index" for name in categories), "scaled"], ["features"], axis=1)
    )
    # Two classes have one row of coefficients (Spark's binomial form), more have one row each.
    constants["coefficients"] = regression.coefficientMatrix.toArray().T
    constants["intercepts"] = regression.interceptVector.toArray()
    nodes += _regression(is_binomial=len(constants["intercepts"]) == 1)
    inputs = [helper.make_tensor_value_info(name, TensorProto.STRING, [None, 1]) for name in spec.categorical]
    inputs += [helper.make_tensor_value_info(n.name, TensorProto.DOUBLE, [None, 1]) for n in spec.numeric]
    outputs = [
        helper.make_tensor_value_info("prediction", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, [None, len(spec.classes)]),
    ]
    _require_size(constants)
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "penguins", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    onnx_model = helper.make_model(graph, producer_name="penguins", opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(onnx_model, {METADATA: json.dumps(_description(spec, categories))})
    onnx.checker.check_model(onnx_model, full_check=True)
    return onnx_model


def known_categories(model: PipelineModel, spec: Spec = PENGUINS) -> dict[str, list[str]]:
    """The values of each categorical column that the model was fitted on, the most frequent first.

    Raises ModelError for a pipeline that `pipeline.build` didn't make, or made for another table.
    """
    indexers, _, _ = _stages(model, spec)
    _require_columns(model, spec)
    return {name: list(indexer.labels) for name, indexer in zip(spec.categorical, indexers, strict=True)}


def _stages(
    model: PipelineModel, spec: Spec
) -> tuple[list[StringIndexerModel], MinMaxScalerModel, LogisticRegressionModel]:
    from pyspark.ml.classification import LogisticRegressionModel
    from pyspark.ml.feature import MinMaxScalerModel, StringIndexerModel, VectorAssembler

    indexers: list[StringIndexerModel] = []
    match model.stages:
        case [*found, VectorAssembler(), MinMaxScalerModel() as scaler, VectorAssembler(), regression]:
            indexers = [stage for stage in found if isinstance(stage, StringIndexerModel)]
            if isinstance(regression, LogisticRegressionModel) and len(indexers) == len(found) == len(spec.categorical):
                return indexers, scaler, regression
    names = ", ".join(type(stage).__name__ for stage in model.stages)
    raise ModelError(
        f"Only the stages that penguins builds ({len(spec.categorical)} indexers, assembler, scaler, assembler, "
        f"logistic regression) can be exported, but this pipeline has {names}."
    )


def _require_columns(model: PipelineModel, spec: Spec) -> None:
    """Stages of the right kinds may still be those of another table, and would answer wrongly without a word."""
    *indexers, numeric, _, features, regression = model.stages
    names = [stage.getInputCol() for stage in cast("list[StringIndexerModel]", indexers)]
    names += cast("VectorAssembler", numeric).getInputCols()
    classes = cast("LogisticRegressionModel", regression).numClasses
    indexed = cast("VectorAssembler", features).getInputCols()[:-1]
    in_order = indexed == [stage.getOutputCol() for stage in cast("list[StringIndexerModel]", indexers)]
    if tuple(names) != spec.features or classes != len(spec.classes) or not in_order:
        raise ModelError(
            f"The pipeline was fitted on {listed(names)} with {classes} classes, "
            f"but the spec has {listed(spec.features)} with {len(spec.classes)}."
        )


def _require_size(constants: dict[str, npt.NDArray[np.float64]]) -> None:
    if (size := sum(value.nbytes for value in constants.values())) > LARGEST_FILE:
        raise ModelError(
            f"The model's coefficients take {size / 1e9:.1f} GB, and an ONNX file holds at most "
            f"{LARGEST_FILE / 1e9:.1f}: train on fewer columns or classes."
        )


def _scaling(scaler: MinMaxScalerModel) -> dict[str, npt.NDArray[np.float64]]:
    """MinMaxScaler's formula as (value - minimum) * factor + offset; a constant column becomes the middle, 0.5."""
    low, high = scaler.getMin(), scaler.getMax()
    minimum = scaler.originalMin.toArray()
    span = scaler.originalMax.toArray() - minimum
    varies = span != 0
    return {
        "minimum": minimum,
        "factor": np.divide(high - low, span, out=np.zeros_like(span), where=varies),
        "offset": np.where(varies, low, 0.5 * (low + high)),
    }


def _index(name: str, labels: list[str]) -> list[NodeProto]:
    """Category text to its index, as a double; the scorer refuses unknown text before it gets here."""
    from onnx import TensorProto, helper

    encode = helper.make_node(
        "LabelEncoder",
        [name],
        [f"{name}.code"],
        domain="ai.onnx.ml",
        keys_strings=labels,
        values_int64s=list(range(len(labels))),
        default_int64=-1,
    )
    return [encode, helper.make_node("Cast", [f"{name}.code"], [f"{name}.index"], to=TensorProto.DOUBLE)]


def _scale(names: Sequence[str]) -> list[NodeProto]:
    from onnx import helper

    return [
        helper.make_node("Concat", names, ["numbers"], axis=1),
        helper.make_node("Sub", ["numbers", "minimum"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "factor"], ["stretched"]),
        helper.make_node("Add", ["stretched", "offset"], ["scaled"]),
    ]


def _regression(*, is_binomial: bool) -> list[NodeProto]:
    """Features to probabilities and the predicted class, decided on the margins as Spark does."""
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["features", "coefficients"], ["products"]),
        helper.make_node("Add", ["products", "intercepts"], ["margins"]),
    ]
    if is_binomial:
        # The first class has margin 0 and wins a tie, so ArgMax over both margins is Spark's threshold of one half.
        return [
            *nodes,
            helper.make_node("Sigmoid", ["margins"], ["second"]),
            helper.make_node("Neg", ["margins"], ["opposite"]),
            helper.make_node("Sigmoid", ["opposite"], ["first"]),
            helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
            helper.make_node("Sub", ["margins", "margins"], ["nothing"]),
            helper.make_node("Concat", ["nothing", "margins"], ["both"], axis=1),
            helper.make_node("ArgMax", ["both"], ["prediction"], axis=1, keepdims=0),
        ]
    return [
        *nodes,
        helper.make_node("Softmax", ["margins"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["margins"], ["prediction"], axis=1, keepdims=0),
    ]


def _description(spec: Spec, categories: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "categories": categories,
        "numbers": [numeric.name for numeric in spec.numeric],
        "classes": list(spec.classes),
        "name_column": spec.name_column,
    }
