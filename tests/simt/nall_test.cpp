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
  std::size_t shared = 227 * 1024;  // of the device
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

template <typename T>
void run(const Case& c, DType dtype, const char* type, double tolerance, unsigned seed) {
  std::mt19937 random(1);
  const int64_t P = c.adapters ? c.adapters : c.N, row = c.N * c.I + c.gap;
  Array<T> x(c.M * row, 1, random, "x"), weight(c.O * c.I, 1 / std::sqrt(double(c.I)), random, "weight");
  Array<T> bias(c.O, 1, random, "bias"), A(P * c.O * c.r, 1, random, "A");
  Array<T> B(P * c.r * c.I, 1 / std::sqrt(double(c.I)), random, "B"), y(c.M * c.N * c.O, "y");
  Array<int64_t> index(c.N, "node_index");
  for (int64_t n = 0; n < c.N; ++n) index.values[std::size_t(n)] = c.adapters ? int64_t(random() % uint64_t(P)) : n;
  for (T& v : y.values) v = stored<T>(NAN);
  const NallProblem p{dtype,
                      c.M,
                      c.N,
                      c.I,
                      c.O,
                      c.r,
                      P,
                      {x.values.data(), row, c.I, 1},
                      weight.values.data(),
                      c.bias ? bias.values.data() : nullptr,
                      A.values.data(),
                      c.O * c.r,
                      B.values.data(),
                      c.r * c.I,
                      c.adapters ? index.values.data() : nullptr,
                      0.7,
                      c.dropout_p,
                      kSeed,
                      c.activation,
                      0.1};
  cuda::emulation() = {.seed = seed, .shared_limit = c.shared, .resident = 2};
  std::string error;
  try {
    const char* refused =
        cuda::nall_forward(p, y.values.data(), {.multiprocessors = 2, .shared_memory = c.shared}, nullptr);
    if (refused) error = refused;
  } catch (const simt::Error& e) {
    error = e.what();
  }
  double worst = 0;
  std::vector<double> z(std::size_t(c.r));
  for (int64_t m = 0; m < c.M && error.empty(); ++m)
    for (int64_t n = 0; n < c.N; ++n) {
      const int64_t adapter = index.values[std::size_t(n)];
      for (int64_t k = 0; k < c.r; ++k) {
        z[std::size_t(k)] = 0;
        for (int64_t i = 0; i < c.I; ++i) {
          const bool keep = c.dropout_p == 0 || kept(c, uint64_t((m * c.N + n) * c.I + i));
          if (keep)
            z[std::size_t(k)] += B[(adapter * c.r + k) * c.I + i] * x[m * row + n * c.I + i] / (1 - c.dropout_p);
        }
      }
      for (int64_t o = 0; o < c.O; ++o) {
        double sum = c.bias ? bias[o] : 0;
        for (int64_t i = 0; i < c.I; ++i) sum += weight[o * c.I + i] * x[m * row + n * c.I + i];
        for (int64_t k = 0; k < c.r; ++k) sum += 0.7 * A[(adapter * c.O + o) * c.r + k] * z[std::size_t(k)];
        if (sum < 0 && c.activation != Activation::none) sum *= c.activation == Activation::relu ? 0 : 0.1;
        const double got = y[(m * c.N + n) * c.O + o];
        worst = got == got ? std::max(worst, std::abs(got - sum) / (1 + std::abs(sum))) : INFINITY;
      }
    }
  if (error.empty() && worst <= tolerance) return;
  ++failures;
  std::printf("M%ld N%ld I%ld O%ld r%ld %s seed %u: error %g %s\n", c.M, c.N, c.I, c.O, c.r, type, seed, worst,
              error.c_str());
}

}  // namespace

int main() {
  const Case cases[] = {
      {1, 1, 1, 1, 1},
      {5, 3, 7, 9, 2},
      {64, 2, 16, 16, 4, 0, 0, Activation::none, false},
      {65, 3, 33, 17, 5, 0, 0, Activation::relu},
      {70, 2, 48, 72, 16, 0, 0.3, Activation::leaky_relu},
      {3, 5, 64, 64, 16, 2},
      {9, 4, 18, 8, 4, 7, 0.5},
      {66, 1, 40, 130, 20, 0, 0.2, Activation::none, true, 8},
      {4, 2, 24, 200, 16, 0, 0, Activation::none, true, 3, 90 * 1024},  // W in parts
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
