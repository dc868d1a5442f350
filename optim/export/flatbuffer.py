"""Changes to a .tflite file that neither the converter nor the quantizer makes: bytes in, bytes out.

The schema's objects come from LiteRT's own tools. A change keeps the signature, and the answers but for what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

# The smallest float16 above 0. A block of zeros has scale 0, which XNNPACK refuses; this one is as good as zero.
SMALLEST_SCALE = np.float16(2.0**-24)
FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")


@dataclass(frozen=True)
class Graph:
    """The one graph of a file, as objects that can be changed."""

    model: Any

    @staticmethod
    def of(content: bytes) -> Graph:
        """What the bytes hold."""
        from ai_edge_litert.tools import flatbuffer_utils

        return Graph(flatbuffer_utils.read_model_from_bytearray(bytearray(content)))

    def bytes(self) -> bytes:
        """The file."""
        from ai_edge_litert.tools import flatbuffer_utils

        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    @cached_property
    def schema(self) -> Any:
        """LiteRT's schema: types of tensors, operators, options."""
        from ai_edge_litert import schema_py_generated

        return schema_py_generated

    @property
    def operators(self) -> list[Any]:
        """In the order in which they run."""
        return self.model.subgraphs[0].operators

    @property
    def tensors(self) -> list[Any]:
        """By their index."""
        return self.model.subgraphs[0].tensors

    def kind(self, operator: Any) -> str:
        """FULLY_CONNECTED, GATHER, ..."""
        code = self.model.operatorCodes[operator.opcodeIndex].builtinCode
        return self._names("BuiltinOperator")[code]

    def type_of(self, tensor: int) -> str:
        """FLOAT32, INT8, ..."""
        return self._names("TensorType")[self.tensors[tensor].type]

    def name(self, tensor: int) -> str:
        """Of a tensor; an operator is known by that of its output."""
        return self.tensors[tensor].name.decode()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Of a tensor, 1 where it varies; () for a scalar."""
        shape = self.tensors[tensor].shape
        return () if shape is None else tuple(int(n) for n in shape)

    def constant(self, tensor: int) -> bytes | None:
        """The content of a constant; None for what is computed."""
        data = self.model.buffers[self.tensors[tensor].buffer].data
        return None if data is None or len(data) == 0 else bytes(data)

    def set_constant(self, tensor: int, value: np.ndarray) -> None:
        """Another content of the same size; other tensors with the same buffer have it too."""
        self.model.buffers[self.tensors[tensor].buffer].data = np.frombuffer(value.tobytes(), np.uint8)

    def add_constant(self, value: np.ndarray, name: str) -> int:
        """A new int32 or float32 constant; its index."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        kind = {"int32": self.schema.TensorType.INT32, "float32": self.schema.TensorType.FLOAT32}[value.dtype.name]
        return self.add_tensor(value.shape, kind, name, buffer=len(self.model.buffers) - 1)

    def add_tensor(self, shape: tuple[int, ...], kind: int, name: str, *, varies: int | None = None,
                   buffer: int = 0) -> int:  # fmt: skip
        """A new tensor, its index; `varies` is the axis whose size only the input tells."""
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.name, tensor.buffer = list(shape), kind, name.encode(), buffer
        if varies is not None:
            tensor.shapeSignature = [-1 if axis == varies else n for axis, n in enumerate(shape)]
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, kind: str, inputs: list[int], outputs: list[int]) -> Any:
        """A new operator without options; it still has to be put in its place."""
        code = getattr(self.schema.BuiltinOperator, kind)
        known = [entry.builtinCode for entry in self.model.operatorCodes]
        if code not in known:
            entry = self.schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            self.model.operatorCodes.append(entry)
            known.append(code)
        new = self.schema.OperatorT()
        new.opcodeIndex, new.inputs, new.outputs = known.index(code), inputs, outputs
        return new

    def _names(self, enumeration: str) -> Mapping[int, str]:
        members = vars(getattr(self.schema, enumeration))
        return {value: name for name, value in members.items() if isinstance(value, int)}


def with_lookups(content: bytes) -> bytes:
    """The file with EMBEDDING_LOOKUP in place of GATHER, where rows of a table are taken by ids [1, length].

    LiteRT's GATHER reads a table that has one scale in all; EMBEDDING_LOOKUP has one for each row, or for each block of
    a row, and reads int4 as well as int8. The answers are the same.
    """
    graph = Graph.of(content)
    operators = []
    for operator in graph.operators:
        operators += _lookup(graph, operator) if _takes_rows(graph, operator) else [operator]
    graph.model.subgraphs[0].operators = operators
    return graph.bytes()


def _takes_rows(graph: Graph, operator: Any) -> bool:
    if graph.kind(operator) != "GATHER":
        return False
    table, ids = operator.inputs
    return len(graph.shape(table)) == len(graph.shape(ids)) == 2 and graph.constant(table) is not None


def _lookup(graph: Graph, gather: Any) -> list[Any]:
    """ids [1, length] -> [length] -> rows [length, width] -> [1, length, width]."""
    (table, ids), (out,) = gather.inputs, gather.outputs
    name, width, kinds = graph.name(out), graph.shape(table)[1], graph.schema.TensorType
    flat = graph.add_tensor((1,), kinds.INT32, f"{name}/ids", varies=0)
    rows = graph.add_tensor((1, width), graph.tensors[out].type, f"{name}/rows", varies=0)
    to_flat = graph.add_constant(np.array([-1], np.int32), f"{name}/to_ids")
    to_rows = graph.add_constant(np.array([1, -1, width], np.int32), f"{name}/to_rows")
    return [
        graph.operator("RESHAPE", [ids, to_flat], [flat]),
        graph.operator("EMBEDDING_LOOKUP", [flat, table], [rows]),
        graph.operator("RESHAPE", [rows, to_rows], [out]),
    ]


def without_zero_scales(content: bytes) -> bytes:
    """The file with SMALLEST_SCALE where a block of weights has scale 0, as blocks of zeros have; else as it is."""
    graph, found = Graph.of(content), 0
    for tensor in graph.tensors:
        scales = getattr(getattr(tensor.quantization, "details", None), "scales", None)
        if scales is None:
            continue
        values = np.frombuffer(graph.constant(scales) or b"", np.float16)
        found += int(np.sum(values == 0))
        graph.set_constant(scales, np.where(values == 0, SMALLEST_SCALE, values))
    return graph.bytes() if found else content


def with_integer_casts(content: bytes) -> bytes:
    """The file with int8 where an integer was cast to float32 only to be quantized: 0 and 1 of a mask stay 0 and 1."""
    graph = Graph.of(content)
    for operator in graph.operators:
        out = operator.outputs[0]
        users = [other for other in graph.operators if out in list(other.inputs)]
        if graph.kind(operator) != "CAST" or {graph.kind(other) for other in users} != {"QUANTIZE"}:
            continue
        parameters = graph.schema.QuantizationParametersT()
        parameters.scale, parameters.zeroPoint = [1.0], [0]
        graph.tensors[out].type, graph.tensors[out].quantization = graph.schema.TensorType.INT8, parameters
        if operator.builtinOptions is not None:
            operator.builtinOptions.outDataType = graph.schema.TensorType.INT8
    return graph.bytes()


def without_squared_differences(content: bytes) -> bytes:
    """The file with (a - b) * (a - b) in place of SQUARED_DIFFERENCE, which LiteRT does not have in int16.

    A norm's graph has a - b already. Where there is none before it, the operator stays.
    """
    graph, operators = Graph.of(content), []
    options = next((one for one in graph.operators if graph.kind(one) == "MUL"), None)
    for operator in graph.operators:
        difference = next((one.outputs[0] for one in operators if graph.kind(one) == "SUB"
                           and list(one.inputs) == list(operator.inputs)), None)  # fmt: skip
        if graph.kind(operator) == "SQUARED_DIFFERENCE" and difference is not None and options is not None:
            operator = graph.operator("MUL", [difference, difference], list(operator.outputs))
            operator.builtinOptions, operator.builtinOptionsType = options.builtinOptions, options.builtinOptionsType
        operators.append(operator)
    graph.model.subgraphs[0].operators = operators
    return graph.bytes()


def float_tensors(content: bytes) -> list[str]:
    """`OPERATOR -> name` of every computed tensor that is a float."""
    graph = Graph.of(content)
    made = [(graph.kind(operator), out) for operator in graph.operators for out in operator.outputs]
    return [f"{kind} -> {graph.name(out)}" for kind, out in made if graph.type_of(out) in FLOATS]


def unfolded(content: bytes, dense: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[bytes, dict[str, tuple]]:
    """The file whose products take what their Keras layer takes, and (input, output, factor) of each layer by name.

    The converter multiplies the scale of a norm into the kernels behind it and adds its shift to their bias, so that a
    kernel of the file is not the one that was fitted, nor is its input. `dense`: name -> (kernel [inputs, outputs],
    bias [outputs]) of the Keras layers. input and output are names of tensors; factor is what the converter multiplied
    into kernel and bias beside that, one number: the query's share of the scaled dot product.
    """
    graph, found = Graph.of(content), {}
    for operator in graph.operators:
        name = _layer_of(graph, operator, dense)
        if name is None:
            continue
        kernel, bias = dense[name]
        source, scale = _norm_of(graph, operator.inputs[0])
        folded = kernel if scale is None else kernel * scale[:, None]
        factor = _factor(graph, operator, folded, bias, name)
        operator.inputs[0] = operator.inputs[0] if source is None else source
        graph.set_constant(operator.inputs[1], np.ascontiguousarray(kernel.T * factor, np.float32))
        # A new one: layers with equal biases may share theirs.
        operator.inputs[2] = graph.add_constant(np.asarray(bias * factor, np.float32), f"{name}/bias")
        found[name] = (graph.name(operator.inputs[0]), graph.name(operator.outputs[0]), factor)
    return graph.bytes(), found


def _layer_of(graph: Graph, operator: Any, names: Mapping[str, Any]) -> str | None:
    if graph.kind(operator) != "FULLY_CONNECTED":
        return None
    parts = set(graph.name(operator.outputs[0]).replace(";", "/").split("/"))
    return next((name for name in names if name in parts), None)


def _norm_of(graph: Graph, tensor: int) -> tuple[int | None, np.ndarray | None]:
    """(a norm's scaled and shifted output, its scale), of its tensor before both; (None, None) for any other tensor."""
    scale = None
    for kind in ("MUL", "ADD"):
        follows = [
            operator for operator in graph.operators
            if graph.kind(operator) == kind and operator.inputs[0] == tensor
            and graph.constant(operator.inputs[1]) is not None and len(graph.shape(operator.inputs[1])) == 1
        ]  # fmt: skip
        if not follows:
            return None, None
        tensor = follows[0].outputs[0]
        scale = _floats(graph, follows[0].inputs[1]) if scale is None else scale
    return tensor, scale


def _factor(graph: Graph, operator: Any, expected: np.ndarray, bias: np.ndarray, name: str) -> float:
    """The one number that makes `expected`, float [inputs, outputs], the kernel of the file.

    A kernel that is pruned to the last weight tells nothing: then it is the one that makes `bias` the bias of the file.
    Raises RuntimeError where no number does: then the converter did something to the kernel that is not known here.
    """
    kernel = _floats(graph, operator.inputs[1]).reshape(graph.shape(operator.inputs[1])).T
    held, own = (kernel, expected) if expected.any() else (_floats(graph, operator.inputs[2]), bias)
    factor = float(np.sum(held * own) / np.sum(own * own)) if own.any() else 1.0
    if not np.allclose(kernel, factor * expected, rtol=1e-3, atol=1e-5 * float(np.abs(kernel).max())):
        raise RuntimeError(f"the converter changed the kernel of {name} in a way that quant=int8_qat does not know")
    return factor


def _floats(graph: Graph, tensor: int) -> np.ndarray:
    return np.frombuffer(graph.constant(tensor) or b"", np.float32)
