// The NALL kernels against plain loops in double, without Python; run under sanitizers.
#include <cmath>

#include "check.h"

namespace {

using namespace stlora;
using check::Array;
using check::converted;

struct Case {
  int64_t M, N, I, O, r, P;
  bool indexed, dropout;
  Activation activation;
  std::string name() const {
    return "M" + std::to_string(M) + "-N" + std::to_string(N) + "-I" + std::to_string(I) + "-O" + std::to_string(O) +
           "-r" + std::to_string(r) + (indexed ? "-indexed" : "") + (dropout ? "-dropout" : "");
  }
};

uint32_t philox_word(uint64_t seed, uint64_t element) {
  uint32_t c[4] = {uint32_t(element / 4), uint32_t(element / 4 >> 32), 0, 0};
  uint32_t k[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(c[0]) * 0xD2511F53u, p1 = uint64_t(c[2]) * 0xCD9E8D57u;
    const uint32_t n[4] = {uint32_t(p1 >> 32) ^ c[1] ^ k[0], uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k[1],
                           uint32_t(p0)};
    for (int i = 0; i < 4; ++i) c[i] = n[i];
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c[element % 4];
}

struct Tensors {
  Array x, weight, bias, A, B, grad;
  std::vector<int64_t> index;
};

struct Results {
  Array y, dx, dweight, dbias, dA, dB;
};

constexpr double kAlpha = 0.7, kSlope = 0.1, kP = 0.3;
constexpr uint64_t kSeed = (uint64_t(5) << 33) + 77;

Tensors make(const Case& c) {
  std::mt19937_64 engine(1);
  auto random = [&](int64_t n) { return check::random(engine, n); };
  Tensors t{random(c.M * c.N * c.I), random(c.O * c.I),       random(c.O), random(c.P * c.O * c.r),
            random(c.P * c.r * c.I), random(c.M * c.N * c.O), {}};
  for (int64_t n = 0; n < c.N; ++n) t.index.push_back(c.indexed ? int64_t(engine() % uint64_t(c.P)) : n);
  return t;
}

Results by_loops(const Case& c, const Tensors& t) {
  Results out{Array(c.M * c.N * c.O), Array(c.M * c.N * c.I), Array(c.O * c.I), Array(c.O),
              Array(c.P * c.O * c.r), Array(c.P * c.r * c.I)};
  for (int64_t m = 0; m < c.M; ++m)
    for (int64_t n = 0; n < c.N; ++n) {
      const double* x = &t.x[(m * c.N + n) * c.I];
      const double* A = &t.A[t.index[n] * c.O * c.r];
      const double* B = &t.B[t.index[n] * c.r * c.I];
      Array keep(c.I, 1.0), z(c.r), u(c.r), g(c.O);
      for (int64_t i = 0; i < c.I && c.dropout; ++i)
        keep[i] = philox_word(kSeed, uint64_t((m * c.N + n) * c.I + i)) >= kP * 4294967296.0 ? 1 / (1 - kP) : 0;
      for (int64_t k = 0; k < c.r; ++k)
        for (int64_t i = 0; i < c.I; ++i) z[k] += B[k * c.I + i] * keep[i] * x[i];
      for (int64_t o = 0; o < c.O; ++o) {
        double sum = t.bias[o];
        for (int64_t i = 0; i < c.I; ++i) sum += t.weight[o * c.I + i] * x[i];
        for (int64_t k = 0; k < c.r; ++k) sum += kAlpha * A[o * c.r + k] * z[k];
        const double slope = c.activation == Activation::none || sum > 0 ? 1
                             : c.activation == Activation::relu          ? 0
                                                                         : kSlope;
        out.y[(m * c.N + n) * c.O + o] = slope * sum;
        g[o] = slope * t.grad[(m * c.N + n) * c.O + o];
        out.dbias[o] += g[o];
        for (int64_t k = 0; k < c.r; ++k) {
          out.dA[(t.index[n] * c.O + o) * c.r + k] += kAlpha * g[o] * z[k];
          u[k] += kAlpha * g[o] * A[o * c.r + k];
        }
        for (int64_t i = 0; i < c.I; ++i) {
          out.dweight[o * c.I + i] += g[o] * x[i];
          out.dx[(m * c.N + n) * c.I + i] += g[o] * t.weight[o * c.I + i];
        }
      }
      for (int64_t k = 0; k < c.r; ++k)
        for (int64_t i = 0; i < c.I; ++i) {
          out.dB[(t.index[n] * c.r + k) * c.I + i] += u[k] * keep[i] * x[i];
          out.dx[(m * c.N + n) * c.I + i] += keep[i] * u[k] * B[k * c.I + i];
        }
    }
  return out;
}

// Outputs start as NaN.
template <typename T>
void compare(const Case& c, const cpu::NallKernels& kernels, const std::string& isa, int threads, DType dtype,
             double tolerance) {
  Tensors t = make(c);
  for (Array* a : {&t.x, &t.weight, &t.bias, &t.A, &t.B, &t.grad})
    for (double& v : *a) v = double(T(v));  // what the kernel is given, exactly
  const Results truth = by_loops(c, t);
  const auto x = converted<T>(t.x), weight = converted<T>(t.weight), bias = converted<T>(t.bias), A = converted<T>(t.A),
             B = converted<T>(t.B), grad = converted<T>(t.grad);
  const NallProblem p{dtype,
                      c.M,
                      c.N,
                      c.I,
                      c.O,
                      c.r,
                      c.P,
                      {x.data(), c.N * c.I, c.I, 1},
                      weight.data(),
                      bias.data(),
                      A.data(),
                      c.O * c.r,
                      B.data(),
                      c.r * c.I,
                      c.indexed ? t.index.data() : nullptr,
                      kAlpha,
                      c.dropout ? kP : 0.0,
                      kSeed,
                      c.activation,
                      kSlope};
  const cpu::Schedule schedule(c.M, c.N, c.P, p.node_index, cpu::kRowBlock, 1e9, threads);
  const double nan = std::nan("");
  std::vector<T> y(truth.y.size(), T(nan)), dx(truth.dx.size(), T(nan)), dweight(truth.dweight.size(), T(nan)),
      dbias(truth.dbias.size(), T(nan)), dA(truth.dA.size(), T(nan)), dB(truth.dB.size(), T(nan));
  kernels.forward[int(dtype)](p, schedule, y.data());
  kernels.backward[int(dtype)](p, schedule, {grad.data(), c.N * c.O, c.O, 1}, y.data(),
                               {dx.data(), dweight.data(), dbias.data(), dA.data(), dB.data()});
  auto same = [&](const char* what, const std::vector<T>& got, const Array& expected) {
    double worst = 0, scale = 1;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double d = std::abs(double(got[i]) - expected[i]);
      worst = d <= worst ? worst : d;  // a NaN becomes the worst and stays it
      scale = std::max(scale, std::abs(expected[i]));
    }
    check::that(worst / scale <= tolerance, c.name() + " " + isa + " " + what + " by " + std::to_string(worst / scale));
  };
  same("y", y, truth.y);
  same("dx", dx, truth.dx);
  same("dweight", dweight, truth.dweight);
  same("dbias", dbias, truth.dbias);
  same("dA", dA, truth.dA);
  same("dB", dB, truth.dB);
}

void refuses_a_bad_node_index() {
  const int64_t index[] = {0, 2};
  try {
    cpu::Schedule schedule(1, 2, 2, index, cpu::kRowBlock, 1, 1);
    check::that(false, "a node_index out of range was taken");
  } catch (const std::exception& error) {
    check::that(std::string(error.what()) == "node_index: got 2 at position 1, expected an adapter in [0, 2)",
                error.what());
  }
}

void every_row_is_dealt_once() {
  for (int64_t rows = 0; rows < 140; ++rows)
    for (int64_t nodes = 1; nodes < 8; ++nodes)
      for (int threads = 1; threads <= 16; ++threads) {
        const cpu::Schedule schedule(rows, nodes, nodes, nullptr, cpu::kRowBlock, 1e9, threads);
        const std::string name =
            "M" + std::to_string(rows) + "-N" + std::to_string(nodes) + " in " + std::to_string(threads) + " threads";
        int64_t dealt = 0;
        for (int64_t u = 0; u < schedule.last(schedule.threads() - 1); ++u) {
          const cpu::Schedule::Unit unit = schedule.unit(u);
          check::that(unit.begin < unit.end && unit.end - unit.begin <= schedule.row_block(), name + ": unit");
          check::that(unit.begin == 0 || unit.begin == schedule.unit(u - 1).end, name + ": gap");
          dealt += unit.end - unit.begin;
        }
        check::that(dealt == rows * nodes, name + ": rows");
        check::that(schedule.row_block() <= cpu::kRowBlock, name + ": block");
      }
}

}  // namespace

int main() {
  every_row_is_dealt_once();
  const auto none = Activation::none, relu = Activation::relu, leaky = Activation::leaky_relu;
  const Case cases[] = {
      {1, 1, 1, 1, 1, 1, false, false, none},       {5, 3, 7, 9, 2, 3, false, false, relu},
      {65, 4, 33, 17, 5, 4, false, true, leaky},    {130, 3, 48, 96, 16, 3, false, false, none},
      {3, 20, 64, 50, 16, 20, false, false, leaky}, {100, 11, 20, 12, 4, 3, true, false, relu},
      {90, 6, 15, 21, 3, 9, true, true, none},      {700, 3, 18, 24, 4, 3, false, false, none},
      {700, 3, 18, 24, 4, 2, true, true, leaky},    {0, 3, 4, 5, 2, 3, false, false, none},
      {4, 0, 4, 5, 2, 0, false, false, none},       {66, 5, 40, 24, 7, 5, false, true, none},
      {9, 5, 41, 24, 7, 5, false, false, none},     {200, 11, 20, 12, 4, 11, false, false, relu},
      {9, 3, 30, 30, 3, 3, false, false, none},     {16, 5, 30, 30, 3, 5, false, false, none},
  };
  for (const check::Isa& isa : check::isas()) {
    for (const Case& c : cases)
      for (int threads : {1, 3, 8}) {
        compare<float>(c, *isa.kernels.nall, isa.name, threads, DType::f32, 1e-4);
        compare<double>(c, *isa.kernels.nall, isa.name, threads, DType::f64, 1e-12);
        // Rounding may turn the sign of a small y, and with it a gradient behind an activation.
        if (c.activation == none) compare<check::Bf16>(c, *isa.kernels.nall, isa.name, threads, DType::bf16, 8e-3);
      }
    std::printf("%s: done\n", isa.name);
  }
  refuses_a_bad_node_index();
  return check::summary();
}
