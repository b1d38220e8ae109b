// The NSP stack without Python, run under sanitizers: the forward pass against plain loops in double, the backward
// pass against differences of the loss along a random direction.
#include <cmath>
#include <type_traits>

#include "check.h"

namespace {

using namespace stlora;
using check::Array;
using check::converted;

struct Case {
  int64_t M, N, D, r, L, P;
  bool indexed;
  double dropout_p;
  std::string name() const {
    return "M" + std::to_string(M) + "-N" + std::to_string(N) + "-D" + std::to_string(D) + "-r" + std::to_string(r) +
           "-L" + std::to_string(L) + (indexed ? "-indexed" : "") + (dropout_p > 0 ? "-dropout" : "");
  }
};

constexpr double kAlpha = 0.7, kEps = 1e-6, kSlope = 0.1;
constexpr uint64_t kSeed = (uint64_t(5) << 33) + 77;

struct Layer {
  Array norm_weight, weight, bias, A, B;
};

struct Tensors {
  Array h, grad;
  std::vector<Layer> layers;
  std::vector<int64_t> index;
};

Tensors make(const Case& c, uint64_t seed, double scale = 1.0) {
  std::mt19937_64 engine(seed);
  auto random = [&](int64_t n, double s = 1.0) { return check::random(engine, n, s * scale); };
  const double thin = 1 / std::sqrt(double(c.D));
  Tensors t{random(c.M * c.N * c.D), random(c.M * c.N * c.D), {}, {}};
  for (int64_t l = 0; l < c.L; ++l)
    t.layers.push_back({random(c.D), random(c.D * c.D, thin), random(c.D), random(c.P * c.D * c.r, 0.5),
                        random(c.P * c.r * c.D, thin)});
  for (int64_t n = 0; n < c.N; ++n) t.index.push_back(c.indexed ? int64_t(engine() % uint64_t(c.P)) : n);
  return t;
}

template <typename T>
struct Run {
  std::vector<T> h, grad, y, dh;
  std::vector<std::conditional_t<sizeof(T) == 8, double, float>> saved;
  struct LayerOf {
    std::vector<T> norm_weight, weight, bias, A, B;
  };
  std::vector<LayerOf> layers, gradients;
};

template <typename T>
Run<T> run(const Case& c, const Tensors& t, const cpu::NspKernels& kernels, int threads, DType dtype) {
  const T nan = T(std::nan(""));
  Run<T> r{converted<T>(t.h), converted<T>(t.grad), {}, {}, {}, {}, {}};
  r.y.assign(r.h.size(), nan);
  r.dh.assign(r.h.size(), nan);
  r.saved.assign(size_t(c.N * (c.L - 1) * c.M * c.D), std::nanf(""));
  for (const Layer& l : t.layers) {
    r.layers.push_back({converted<T>(l.norm_weight), converted<T>(l.weight), converted<T>(l.bias), converted<T>(l.A),
                        converted<T>(l.B)});
    r.gradients.push_back(r.layers.back());
    auto& g = r.gradients.back();
    for (auto* v : {&g.norm_weight, &g.weight, &g.bias, &g.A, &g.B}) v->assign(v->size(), nan);
  }
  std::vector<NspLayer> layers;
  std::vector<NspLayerGradients> gradients;
  for (int64_t l = 0; l < c.L; ++l) {
    const auto& p = r.layers[size_t(l)];
    auto& g = r.gradients[size_t(l)];
    layers.push_back(
        {p.norm_weight.data(), p.weight.data(), p.bias.data(), p.A.data(), c.D * c.r, p.B.data(), c.r * c.D, c.r});
    gradients.push_back({g.norm_weight.data(), g.weight.data(), g.bias.data(), g.A.data(), g.B.data()});
  }
  const NspProblem p{dtype,
                     c.M,
                     c.N,
                     c.D,
                     c.P,
                     c.L,
                     layers.data(),
                     {r.h.data(), c.N * c.D, c.D, 1},
                     c.indexed ? t.index.data() : nullptr,
                     kAlpha,
                     kEps,
                     kSlope,
                     c.dropout_p,
                     kSeed};
  const cpu::Schedule schedule(c.M, c.N, c.P, p.node_index, cpu::kRowBlock, 1e9, threads);
  kernels.forward[int(dtype)](p, schedule, r.y.data(), r.saved.data());
  kernels.backward[int(dtype)](p, schedule, {r.grad.data(), c.N * c.D, c.D, 1}, r.saved.data(), r.dh.data(),
                               gradients.data());
  return r;
}

Array by_loops(const Case& c, const Tensors& t) {  // without dropout
  Array h = t.h;
  for (const Layer& l : t.layers)
    for (int64_t m = 0; m < c.M; ++m)
      for (int64_t n = 0; n < c.N; ++n) {
        double* row = &h[size_t((m * c.N + n) * c.D)];
        const double *A = &l.A[size_t(t.index[n] * c.D * c.r)], *B = &l.B[size_t(t.index[n] * c.r * c.D)];
        double square = 0;
        for (int64_t j = 0; j < c.D; ++j) square += row[j] * row[j];
        Array s(size_t(c.D)), z(size_t(c.r));
        for (int64_t j = 0; j < c.D; ++j) {
          const double u = row[j] / std::sqrt(square / double(c.D) + kEps) * l.norm_weight[j];
          s[j] = u > 0 ? u : kSlope * u;
        }
        for (int64_t k = 0; k < c.r; ++k)
          for (int64_t j = 0; j < c.D; ++j) z[k] += B[k * c.D + j] * s[j];
        for (int64_t o = 0; o < c.D; ++o) {
          row[o] += l.bias[o];
          for (int64_t j = 0; j < c.D; ++j) row[o] += l.weight[o * c.D + j] * s[j];
          for (int64_t k = 0; k < c.r; ++k) row[o] += kAlpha * A[o * c.r + k] * z[k];
        }
      }
  return h;
}

double largest_error(const Array& truth, const std::vector<float>& got) {
  double worst = 0, scale = 1;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double d = std::abs(double(got[i]) - truth[i]);
    worst = d <= worst ? worst : d;  // a NaN becomes the worst and stays it
    scale = std::max(scale, std::abs(truth[i]));
  }
  return worst / scale;
}

// Of all numbers together: one that is 0 but for rounding takes the other branch of the leaky ReLU.
template <typename T>
double distance(const std::vector<double>& truth, const std::vector<T>& got) {
  double difference = 0, size = 1e-6;
  for (size_t i = 0; i < truth.size(); ++i) {
    difference += (double(got[i]) - truth[i]) * (double(got[i]) - truth[i]);
    size += truth[i] * truth[i];
  }
  return std::sqrt(difference / size);
}

void test_bf16(const Case& c, const check::Isa& isa, int threads) {
  using check::Bf16;
  Tensors t = make(c, 1);
  const auto round = [](Array& a) {
    for (double& v : a) v = double(Bf16(v));  // what the kernel is given, exactly
  };
  round(t.h), round(t.grad);
  for (Layer& l : t.layers)
    for (Array* a : {&l.norm_weight, &l.weight, &l.bias, &l.A, &l.B}) round(*a);
  const Run<double> truth = run<double>(c, t, *isa.kernels.nsp, threads, DType::f64);
  const Run<Bf16> got = run<Bf16>(c, t, *isa.kernels.nsp, threads, DType::bf16);
  const double tolerance = c.L == 1 ? 0.005 : 0.06;  // through several layers, with the branches above
  const auto close = [&](const char* what, const std::vector<double>& expected, const std::vector<Bf16>& given) {
    const double d = distance(expected, given);
    check::that(d < tolerance, c.name() + " " + isa.name + " bf16 " + what + " by " + std::to_string(d));
  };
  close("y", truth.y, got.y);
  close("dh", truth.dh, got.dh);
  for (int64_t l = 0; l < c.L; ++l) {
    const auto& expected = truth.gradients[size_t(l)];
    const auto& given = got.gradients[size_t(l)];
    close("dnorm_weight", expected.norm_weight, given.norm_weight);
    close("dweight", expected.weight, given.weight);
    close("dbias", expected.bias, given.bias);
    close("dA", expected.A, given.A);
    close("dB", expected.B, given.B);
  }
}

Tensors moved(const Tensors& t, const Tensors& direction, double step) {
  Tensors result = t;
  auto move = [step](Array& a, const Array& d) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += step * d[i];
  };
  move(result.h, direction.h);
  for (size_t l = 0; l < t.layers.size(); ++l) {
    Layer& to = result.layers[l];
    const Layer& d = direction.layers[l];
    move(to.norm_weight, d.norm_weight), move(to.weight, d.weight), move(to.bias, d.bias);
    move(to.A, d.A), move(to.B, d.B);
  }
  return result;
}

double inner(const Array& a, const Array& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void test(const Case& c, const check::Isa& isa, int threads) {
  const std::string name = c.name() + " " + isa.name + " threads " + std::to_string(threads);
  const cpu::NspKernels& kernels = *isa.kernels.nsp;
  const Tensors t = make(c, 1), direction = make(c, 2);
  const Run<double> at = run<double>(c, t, kernels, threads, DType::f64);
  const Run<float> in_float = run<float>(c, t, kernels, threads, DType::f32);
  check::that(largest_error(at.y, in_float.y) < 1e-4, name + " y in float");
  check::that(largest_error(at.dh, in_float.dh) < 1e-4, name + " dh in float");
  if (c.dropout_p == 0) {
    const Array expected = by_loops(c, t);
    for (size_t i = 0; i < expected.size(); ++i)
      check::that(std::abs(at.y[i] - expected[i]) <= 1e-10 * (1 + std::abs(expected[i])), name + " y");
  }
  constexpr double kStep = 1e-6;
  const Array ahead = run<double>(c, moved(t, direction, kStep), kernels, threads, DType::f64).y;
  const Array behind = run<double>(c, moved(t, direction, -kStep), kernels, threads, DType::f64).y;
  const double by_difference = (inner(ahead, t.grad) - inner(behind, t.grad)) / (2 * kStep);
  double by_gradient = inner(at.dh, direction.h);
  for (int64_t l = 0; l < c.L; ++l) {
    const auto& g = at.gradients[size_t(l)];
    const Layer& d = direction.layers[size_t(l)];
    by_gradient += inner(g.norm_weight, d.norm_weight) + inner(g.weight, d.weight) + inner(g.bias, d.bias) +
                   inner(g.A, d.A) + inner(g.B, d.B);
  }
  check::that(std::abs(by_difference - by_gradient) <= 1e-5 * (1 + std::abs(by_gradient)),
              name + " gradient: " + std::to_string(by_gradient) + ", difference: " + std::to_string(by_difference));
}

}  // namespace

int main() {
  const Case cases[] = {
      {1, 1, 1, 1, 1, 1, false, 0},    {5, 3, 7, 2, 2, 3, false, 0},        {65, 4, 33, 5, 3, 4, false, 0.3},
      {90, 6, 20, 3, 2, 4, true, 0.2}, {1100, 2, 40, 4, 2, 2, false, 0.1},  {0, 3, 4, 2, 2, 3, false, 0},
      {4, 0, 4, 2, 2, 0, false, 0},    {200, 11, 16, 3, 2, 11, false, 0.1}, {65, 4, 33, 5, 1, 4, false, 0.3},
      {9, 4, 33, 5, 1, 4, false, 0.3}, {90, 6, 20, 3, 1, 4, true, 0},
  };
  for (const check::Isa& isa : check::isas()) {
    for (const Case& c : cases)
      for (int threads : {1, 3, 8}) test(c, isa, threads), test_bf16(c, isa, threads);
    std::printf("%s: done\n", isa.name);
  }
  return check::summary();
}
