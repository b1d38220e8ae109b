// The CUDA kernels of the NALL on the emulator against plain loops in double, under several orders of threads.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "simt.h"
#include "stlora/cuda.h"

namespace stlora::cuda {
simt::Options& emulation() {
  static simt::Options options;
  return options;
}
}  // namespace stlora::cuda

namespace {

using namespace stlora;

struct Case {
  int64_t M, N, I, O, r;
  int64_t adapters = 0;  // with a node_index
  double dropout_p = 0;
  Activation activation = Activation::none;
  bool bias = true;
  int64_t gap = 0;                  // numbers between two rows of x
  std::size_t shared = 227 * 1024;  // of the device, for 16-bit types
};

constexpr uint64_t kSeed = (uint64_t{5} << 33) + 77;
int failures = 0;

bool kept(const Case& c, uint64_t element) {
  uint32_t x[4] = {uint32_t(element / 4), uint32_t(element / 4 >> 32), 0, 0}, k[2] = {uint32_t(kSeed), kSeed >> 32};
  for (int round = 0; round < 10; ++round, k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u) {
    const uint64_t p0 = uint64_t{x[0]} * 0xD2511F53u, p1 = uint64_t{x[2]} * 0xCD9E8D57u;
    const uint32_t next[4] = {uint32_t(p1 >> 32) ^ x[1] ^ k[0], uint32_t(p1), uint32_t(p0 >> 32) ^ x[3] ^ k[1],
                              uint32_t(p0)};
    std::copy(next, next + 4, x);
  }
  return x[element % 4] >= std::ceil(c.dropout_p * 4294967296.0);
}

template <typename T>
T stored(double x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half(float(x));
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16(float(x));
  } else {
    return T(x);
  }
}

// 16-byte aligned and as long as asked, so that what is beyond is beyond.
template <typename T>
struct Array {
  std::vector<T> values;
  simt::Allow allow;
  Array(int64_t n, const char* name) : values(std::size_t(n)), allow(values.data(), std::size_t(n) * sizeof(T), name) {}
  Array(int64_t n, double scale, std::mt19937& random, const char* name) : Array(n, name) {
    std::normal_distribution<double> normal;
    for (T& v : values) v = stored<T>(scale * normal(random));
  }
  double operator[](int64_t i) const { return double(float(values[std::size_t(i)])); }
};

struct Truth {
  std::vector<double> y, dx, dweight, dbias, dA, dB;
};

template <typename T>
struct Tensors {
  int64_t P, row;
  Array<T> x, weight, bias, A, B, grad;
  Array<int64_t> index, order, first_slot;
  std::mt19937 random{1};

  explicit Tensors(const Case& c)
      : P(c.adapters ? c.adapters : c.N),
        row(c.N * c.I + c.gap),
        x(c.M * row, 1, random, "x"),
        weight(c.O * c.I, 1 / std::sqrt(double(c.I)), random, "weight"),
        bias(c.O, 1, random, "bias"),
        A(P * c.O * c.r, 1, random, "A"),
        B(P * c.r * c.I, 1 / std::sqrt(double(c.I)), random, "B"),
        grad(c.M * c.N * c.O, 1, random, "grad"),
        index(c.N, "node_index"),
        order(c.N, "order"),
        first_slot(P + 1, "first_slot") {
    for (int64_t n = 0; n < c.N; ++n) index.values[std::size_t(n)] = c.adapters ? int64_t(random() % uint64_t(P)) : n;
    int64_t at = 0;
    for (int64_t p = 0; p < P; ++p) {
      first_slot.values[std::size_t(p)] = at;
      for (int64_t n = 0; n < c.N; ++n)
        if (index.values[std::size_t(n)] == p) order.values[std::size_t(at++)] = n;
    }
    first_slot.values[std::size_t(P)] = at;
  }
};

template <typename T>
Truth by_loops(const Case& c, const Tensors<T>& t, const Array<T>* y_given) {
  Truth out{std::vector<double>(c.M * c.N * c.O), std::vector<double>(c.M * c.N * c.I),
            std::vector<double>(c.O * c.I),       std::vector<double>(c.O),
            std::vector<double>(t.P * c.O * c.r), std::vector<double>(t.P * c.r * c.I)};
  std::vector<double> z(c.r), u(c.r), g(c.O), dropped(c.I), factor(c.I);
  for (int64_t m = 0; m < c.M; ++m)
    for (int64_t n = 0; n < c.N; ++n) {
      const int64_t p = t.index.values[std::size_t(n)], here = m * c.N + n;
      for (int64_t i = 0; i < c.I; ++i) {
        factor[i] = c.dropout_p == 0 ? 1 : kept(c, uint64_t(here * c.I + i)) ? 1 / (1 - c.dropout_p) : 0;
        dropped[i] = t.x[m * t.row + n * c.I + i] * factor[i];
      }
      for (int64_t k = 0; k < c.r; ++k) {
        z[k] = u[k] = 0;
        for (int64_t i = 0; i < c.I; ++i) z[k] += t.B[(p * c.r + k) * c.I + i] * dropped[i];
      }
      for (int64_t o = 0; o < c.O; ++o) {
        double sum = c.bias ? t.bias[o] : 0;
        for (int64_t i = 0; i < c.I; ++i) sum += t.weight[o * c.I + i] * t.x[m * t.row + n * c.I + i];
        for (int64_t k = 0; k < c.r; ++k) sum += 0.7 * t.A[(p * c.O + o) * c.r + k] * z[k];
        const double slope = c.activation == Activation::none ? 1 : c.activation == Activation::relu ? 0 : 0.1;
        out.y[here * c.O + o] = sum < 0 ? sum * slope : sum;
        const double y = y_given ? (*y_given)[here * c.O + o] : sum;
        g[o] = t.grad[here * c.O + o] * (y > 0 ? 1 : slope);
        out.dbias[o] += g[o];
        for (int64_t k = 0; k < c.r; ++k) {
          out.dA[(p * c.O + o) * c.r + k] += 0.7 * g[o] * z[k];
          u[k] += 0.7 * g[o] * t.A[(p * c.O + o) * c.r + k];
        }
      }
      for (int64_t i = 0; i < c.I; ++i) {
        double& dx = out.dx[here * c.I + i];
        for (int64_t o = 0; o < c.O; ++o) {
          dx += g[o] * t.weight[o * c.I + i];
          out.dweight[o * c.I + i] += g[o] * t.x[m * t.row + n * c.I + i];
        }
        for (int64_t k = 0; k < c.r; ++k) {
          dx += u[k] * t.B[(p * c.r + k) * c.I + i] * factor[i];
          out.dB[(p * c.r + k) * c.I + i] += u[k] * dropped[i];
        }
      }
    }
  return out;
}

template <typename T>
double worst(const Array<T>& got, const std::vector<double>& expected) {
  double largest = 1, error = 0;
  for (double e : expected) largest = std::max(largest, std::abs(e));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(got[int64_t(i)] - expected[i]);
    error = difference == difference ? std::max(error, difference) : INFINITY;
  }
  return error / largest;
}

template <typename T>
void run(const Case& c, DType dtype, const char* type, double tolerance, unsigned seed) {
  const std::size_t shared = sizeof(T) == 4 ? 227 * 1024 : c.shared;
  Tensors<T> t(c);
  Array<T> y(c.M * c.N * c.O, "y"), dx(c.M * c.N * c.I, "dx"), dweight(c.O * c.I, "dweight"), dbias(c.O, "dbias");
  Array<T> dA(t.P * c.O * c.r, "dA"), dB(t.P * c.r * c.I, "dB");
  for (auto* a : {&y, &dx, &dweight, &dbias, &dA, &dB})
    for (T& v : a->values) v = stored<T>(NAN);
  const NallProblem p{dtype,
                      c.M,
                      c.N,
                      c.I,
                      c.O,
                      c.r,
                      t.P,
                      {t.x.values.data(), t.row, c.I, 1},
                      t.weight.values.data(),
                      c.bias ? t.bias.values.data() : nullptr,
                      t.A.values.data(),
                      c.O * c.r,
                      t.B.values.data(),
                      c.r * c.I,
                      c.adapters ? t.index.values.data() : nullptr,
                      0.7,
                      c.dropout_p,
                      kSeed,
                      c.activation,
                      0.1};
  const NallGradients gradients{dx.values.data(), dweight.values.data(), dbias.values.data(), dA.values.data(),
                                dB.values.data()};
  const cuda::Device device{.multiprocessors = 2, .shared_memory = shared};
  cuda::emulation() = {.seed = seed, .shared_limit = shared, .resident = 2};
  const cuda::WorkspaceSize size = cuda::nall_backward_workspace(p, gradients, device);
  Array<float> floats(size.floats, "workspace");
  Array<unsigned> counters(size.counters, "counters");
  std::fill(floats.values.begin(), floats.values.end(), NAN);
  std::string error;
  try {
    const char* refused = cuda::nall_forward(p, y.values.data(), device, nullptr);
    if (!refused)
      refused = cuda::nall_backward(
          p, {t.grad.values.data(), c.N * c.O, c.O, 1}, y.values.data(), gradients,
          {c.adapters ? t.order.values.data() : nullptr, c.adapters ? t.first_slot.values.data() : nullptr},
          {floats.values.data(), counters.values.data()}, device, nullptr);
    if (refused) error = refused;
  } catch (const simt::Error& e) {
    error = e.what();
  }
  const Truth truth = by_loops(c, t, &y);
  const double errors[] = {worst(y, truth.y),         worst(dx, truth.dx), worst(dweight, truth.dweight),
                           worst(dbias, truth.dbias), worst(dA, truth.dA), worst(dB, truth.dB)};
  bool right = error.empty();
  for (double e : errors) right &= e <= tolerance;
  for (unsigned count : counters.values) right &= count == 0;
  if (right) return;
  ++failures;
  std::printf("M%ld N%ld I%ld O%ld r%ld %s seed %u: y %g dx %g dW %g db %g dA %g dB %g %s\n", c.M, c.N, c.I, c.O, c.r,
              type, seed, errors[0], errors[1], errors[2], errors[3], errors[4], errors[5], error.c_str());
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  const Case cases[] = {
      {1, 1, 1, 1, 1},
      {5, 3, 7, 9, 2},
      {64, 2, 16, 16, 4, 0, 0, Activation::none, false},
      {65, 3, 33, 17, 5, 0, 0, Activation::relu},
      {70, 2, 48, 72, 16, 0, 0.3, Activation::leaky_relu},
      {3, 5, 64, 64, 16, 2},
      {9, 4, 18, 8, 4, 7, 0.5},
      {66, 1, 40, 130, 20, 0, 0.2, Activation::none, true, 8},
      {4, 2, 24, 200, 16, 0, 0, Activation::none, true, 3, 108 * 1024},  // W in parts
      {3, 23, 16, 8, 4},      // several units for a block: both buffers, again and again
      {400, 2, 16, 8, 4, 2},  // several tiles of rows for a share
      {0, 3, 4, 5, 2},
  };
  for (const Case& c : cases)
    for (unsigned seed = 0; seed < 2; ++seed) {
      run<float>(c, DType::f32, "fp32", 1e-5, seed);
      run<__half>(c, DType::f16, "fp16", 4e-3, seed);
      run<__nv_bfloat16>(c, DType::bf16, "bf16", 3e-2, seed);
    }
  const NallProblem large{DType::f32,       1, 1, 1024, 1024, 16, 1, {}, {}, {}, {}, 0, {}, 0, {}, 1, 0, 0,
                          Activation::none, 0};
  if (!cuda::why_not(large, {1, 99 * 1024})) ++failures, std::puts("1024 features were not refused");
  return failures ? 1 : 0;
}
