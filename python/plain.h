// Quick answers about the arguments of an operation, for which Python would take as long as a small layer takes.
// A "no" here is not a verdict: the slower code in Python that asked has the last word, and the message.
#pragma once

#include <cmath>

#include "tensor.h"

namespace stlora::python {

// The tensor; none for what is more than its memory, or less.
inline Tensor read_plain(py::handle object) {
  const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
  if (type != Torch::get().tensor.ptr() && type != Torch::get().parameter.ptr()) return {};  // its own idea of itself
  if (!Torch::get().api) return {};
  try {
    Tensor tensor(py::reinterpret_borrow<py::object>(object));
    if (tensor.is_complex()) return {};                   // perhaps the conjugate of its memory
    if (!tensor.data() && !tensor.is_empty()) return {};  // zeros that have none
    const py::object negative =
        py::reinterpret_steal<py::object>(PyObject_CallOneArg(Torch::get().is_neg.ptr(), object.ptr()));
    if (!negative) throw py::error_already_set();  // of a mode that listens to it
    return negative.ptr() == Py_False ? tensor : Tensor();
  } catch (const py::error_already_set&) {  // sparse, the wrapper of a transform, or a mode
    return {};
  }
}

// Is a tensor nothing more than its memory? None is.
inline bool is_plain(py::handle object) { return object.is_none() || read_plain(object); }

inline bool is_number(py::handle object, double low, double high) {
  if (!PyFloat_CheckExact(object.ptr()) && !PyLong_CheckExact(object.ptr())) return false;
  const double value = PyFloat_AsDouble(object.ptr());
  if (PyErr_Occurred()) {  // an int beyond all doubles
    PyErr_Clear();
    return false;
  }
  return low <= value && value <= high;
}

// Are these plain, and a NALL of one adapter per node? See _refuse in stlora_kernels/ops/inputs.py.
inline bool plain_nall(py::handle x_object, py::handle weight_object, py::handle bias_object, py::handle A_object,
                       py::handle B_object, py::handle alpha, py::handle dropout_p, py::handle seed,
                       py::handle activation, py::handle negative_slope, py::handle node_index) {
  const Tensor x = read_plain(x_object), weight = read_plain(weight_object), A = read_plain(A_object),
               B = read_plain(B_object);
  if (!x || !weight || !A || !B || x.dim() < 2 || weight.dim() != 2 || A.dim() != 3 || B.dim() != 3) return false;
  const int64_t N = x.size(-2), I = x.size(-1), O = weight.size(0), r = A.size(2);
  if (!bias_object.is_none()) {
    const Tensor bias = read_plain(bias_object);
    if (!bias || bias.dim() != 1 || bias.size(0) != O || !x.is_like(bias)) return false;
  }
  constexpr double kInfinity = HUGE_VAL;
  return x.is_float() && x.is_like(weight) && x.is_like(A) && x.is_like(B) && weight.size(1) == I && A.size(0) == N &&
         A.size(1) == O && r > 0 && B.size(0) == N && B.size(1) == r && B.size(2) == I && node_index.is_none() &&
         seed.is_none() && activation.is_none() && is_number(alpha, -kInfinity, kInfinity) &&
         is_number(dropout_p, 0, 1) && is_number(negative_slope, 0, kInfinity);
}

}  // namespace stlora::python
