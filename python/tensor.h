// A torch tensor as a function of the module receives it: address, sizes and strides, read through DLPack.
//
// torch >= 2.10 hands out a table of C functions for this (`Tensor.__dlpack_c_exchange_api__`), at a tenth of the cost
// of asking in Python; an older torch makes a capsule. Neither needs a header or a library of torch.
// The structures are those of the DLPack specification, version 1.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>

#include "stlora/nall.h"

namespace stlora::python {

namespace py = pybind11;

struct DLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct ExchangeApi {
  uint32_t major, minor;
  const ExchangeApi* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*from_object)(void* object, DLTensor* out);  // 0, or -1 and a Python exception
  void* current_stream;
};

// What this module needs of torch, looked up once.
struct Torch {
  py::object tensor, parameter, to_capsule, is_neg;
  const ExchangeApi* api = nullptr;

  static const Torch& get() {
    static const Torch* const torch = new Torch;  // never freed: Python may be gone by then
    return *torch;
  }

 private:
  Torch() {
    const auto module = py::module_::import("torch");
    tensor = module.attr("Tensor");
    parameter = module.attr("nn").attr("Parameter");
    to_capsule = py::module_::import("torch.utils.dlpack").attr("to_dlpack");
    is_neg = tensor.attr("is_neg");
    if (!py::hasattr(tensor, "__dlpack_c_exchange_api__")) return;
    const auto capsule = py::reinterpret_borrow<py::capsule>(tensor.attr("__dlpack_c_exchange_api__"));
    for (api = capsule.get_pointer<const ExchangeApi>(); api && api->major != 1;) api = api->previous;
    if (api && !api->from_object) api = nullptr;
  }
};

class Tensor {
 public:
  Tensor() = default;  // none: no data

  // Throws the Python exception of what is no tensor or has no memory of its own.
  explicit Tensor(py::object tensor) : object_(std::move(tensor)) {
    const Torch& torch = Torch::get();
    if (torch.api) {
      if (torch.api->from_object(object_.ptr(), &dl_) != 0) throw py::error_already_set();
    } else {
      capsule_ = torch.to_capsule(object_.attr("detach")());
      dl_ = *py::reinterpret_borrow<py::capsule>(capsule_).get_pointer<DLTensor>();
    }
  }

  explicit operator bool() const { return !object_.is_none(); }
  int dim() const { return dl_.ndim; }
  int64_t size(int d) const { return dl_.shape[d < 0 ? dl_.ndim + d : d]; }
  int64_t stride(int d) const { return dl_.strides[d]; }
  template <typename T = void>
  T* data() const {
    return dl_.data ? reinterpret_cast<T*>(static_cast<char*>(dl_.data) + dl_.byte_offset) : nullptr;
  }

  int64_t integer() const {  // of a single int64; 0 of none
    if (!*this) return 0;
    const bool at_hand = dl_.device_type == kCpu && dl_.type_code == kInt && dl_.type_bits == 64 && !is_empty();
    return at_hand ? *data<int64_t>() : object_.attr("item")().cast<int64_t>();
  }

  int64_t bytes_spanned() const {  // from the first element to the last
    if (!*this || is_empty()) return 0;
    int64_t last = 0;
    for (int d = 0; d < dl_.ndim; ++d) last += (dl_.shape[d] - 1) * dl_.strides[d];
    return (last + 1) * dl_.type_bits / 8;
  }
  bool is_empty() const {
    for (int d = 0; d < dl_.ndim; ++d)
      if (dl_.shape[d] == 0) return true;
    return false;
  }
  bool is_like(const Tensor& other) const {  // in type and device
    return dl_.type_code == other.dl_.type_code && dl_.type_bits == other.dl_.type_bits &&
           dl_.device_type == other.dl_.device_type && dl_.device_id == other.dl_.device_id;
  }
  bool is_complex() const { return dl_.type_code == kComplex; }
  bool is_float() const { return dl_.type_code == kFloat || dl_.type_code == kBfloat; }
  DType dtype() const {
    if (dl_.type_code == kBfloat && dl_.type_bits == 16) return DType::bf16;
    if (dl_.type_code == kFloat && dl_.type_bits == 64) return DType::f64;
    if (dl_.type_code == kFloat && dl_.type_bits == 32) return DType::f32;
    if (dl_.type_code == kFloat && dl_.type_bits == 16) return DType::f16;
    throw py::type_error("expected a tensor of float64, float32, bfloat16 or float16");
  }

  // The same numbers without gaps; a copy only where there are some.
  Tensor contiguous() const { return !*this || is_contiguous_from(0) ? *this : Tensor(object_.attr("contiguous")()); }
  // The same for the matrix of each adapter; those may share memory, so an expanded factor is not copied.
  Tensor per_adapter() const {
    if (is_contiguous_from(1)) return *this;
    if (stride(0) != 0 || size(0) < 2) return contiguous();
    return Tensor(object_[py::slice(0, 1, 1)].attr("contiguous")().attr("expand_as")(object_));
  }

 private:
  static constexpr int32_t kCpu = 1;
  static constexpr uint8_t kInt = 0, kFloat = 2, kBfloat = 4, kComplex = 5;

  bool is_contiguous_from(int first) const {
    int64_t expected = 1;
    for (int d = dl_.ndim - 1; d >= first; --d) {
      if (dl_.strides[d] != expected && dl_.shape[d] != 1) return false;
      expected *= dl_.shape[d];
    }
    return true;
  }

  py::object object_ = py::none(), capsule_;
  DLTensor dl_{};
};

inline bool is_tensor(py::handle object) {
  return PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(Torch::get().tensor.ptr()));
}

}  // namespace stlora::python

// An argument of type Tensor takes a torch.Tensor, or None.
template <>
struct pybind11::detail::type_caster<stlora::python::Tensor> {
  PYBIND11_TYPE_CASTER(stlora::python::Tensor, const_name("torch.Tensor | None"));

  bool load(handle source, bool) {
    if (source.is_none()) return true;
    if (!stlora::python::is_tensor(source)) return false;
    value = stlora::python::Tensor(reinterpret_borrow<object>(source));
    return true;
  }
};
