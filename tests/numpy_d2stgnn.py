"""D2STGNN as published, in numpy: one window at a time, matrices as large as the paper writes them."""

import math
from collections import namedtuple

import numpy as np


class Weights(dict):
    """Parameters and buffers by name; ``w / "layers.0"`` are those under that name."""

    def __truediv__(self, name):
        return Weights({key[len(name) + 1 :]: v for key, v in self.items() if key.startswith(f"{name}.")})

    def linear(self, name, x):
        return x @ self[f"{name}.weight"].T + self.get(f"{name}.bias", 0.0)

    def layer_norm(self, name, x):
        mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * self[f"{name}.weight"] + self[f"{name}.bias"]


def weights_of(module):
    return Weights({name: tensor.numpy() for name, tensor in module.state_dict().items()})


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def numpy_transitions(A):
    A = A.double().numpy()
    forward, backward = np.zeros_like(A), np.zeros_like(A)
    for i in range(len(A)):
        for j in range(len(A)):
            if A[j, i] > 0:
                forward[i, j] = A[j, i] / A[j].sum()
            if A[i, j] > 0:
                backward[i, j] = A[i, j] / A[:, j].sum()
    return forward, backward


def numpy_dynamic_graphs(w, values, times, nodes, masks):
    """``[N, N]`` for each direction; values ``[T, N]``, times ``[N, 2*c_time]``, running statistics."""
    z = relu(w.linear("map1", values.T))
    z = (z - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + 1e-5) * w["norm.weight"] + w["norm.bias"]
    z = w.linear("map2", z)
    found = []
    for E, mask in zip(nodes, masks, strict=True):
        c = np.concatenate([z, times, E], axis=1)
        q, k = w.linear("query", c), w.linear("key", c)
        masked = (mask + 1e-7) * softmax(q @ k.T / math.sqrt(q.shape[1]))
        found.append(np.diag(1 / masked.sum(axis=1)) @ masked)
    return found


def numpy_localized(P, order, k_t):
    """``P^1 .. P^order`` without diagonals, each beside itself ``k_t`` times: ``[N, k_t*N]``."""
    off_diagonal = 1 - np.eye(len(P))
    return [np.tile(np.linalg.matrix_power(P, k) * off_diagonal, k_t) for k in range(1, order + 1)]


def numpy_conv(w, x, supports, k_t):
    """``[T, N, hidden] -> [T - k_t + 1, N, hidden]``."""
    out = []
    for t in range(k_t - 1, len(x)):
        near = np.concatenate(list(x[t - k_t + 1 : t + 1]), axis=-1)  # [N, k_t*hidden]
        steps = np.split(relu(w.linear("map", near)), k_t, axis=-1)
        rows = np.concatenate(steps)  # [k_t*N, hidden]
        terms = [np.mean(steps, axis=0), *(P @ rows for P in supports)]
        out.append(w.linear("theta", np.concatenate(terms, axis=-1)))
    return np.stack(out)


def numpy_gru(w, x, h):
    r_x, z_x, n_x = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, axis=-1)
    r_h, z_h, n_h = np.split(h @ w["weight_hh"].T + w["bias_hh"], 3, axis=-1)
    z = sigmoid(z_x + z_h)
    return (1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * h


def numpy_attention(w, queries, states, heads):
    """``[T', hidden], [T, hidden] -> [T', hidden]``."""
    w_q, w_k, w_v = np.split(w["in_proj_weight"], 3)
    b_q, b_k, b_v = np.split(w["in_proj_bias"], 3)
    q, k, v = queries @ w_q.T + b_q, states @ w_k.T + b_k, states @ w_v.T + b_v
    width = q.shape[1] // heads
    of_head = [slice(i * width, (i + 1) * width) for i in range(heads)]
    heard = [softmax(q[:, s] @ k[:, s].T / math.sqrt(width)) @ v[:, s] for s in of_head]
    return w.linear("out_proj", np.concatenate(heard, axis=1))


def numpy_positions(steps, hidden):
    table = np.zeros((steps, hidden))
    for t in range(steps):
        for i in range(hidden):
            angle = t / 10_000 ** ((i - i % 2) / hidden)
            table[t, i] = math.cos(angle) if i % 2 else math.sin(angle)
    return table


def numpy_inherent(w, x, blocks, heads, positions):
    """One node's ``[T, hidden]`` -> attention's ``[T, hidden]`` and the forecast states ``[blocks, hidden]``."""
    states = [np.zeros(x.shape[1])]
    for step in x:
        states.append(numpy_gru(w / "gru", step, states[-1]))
    states = np.stack(states[1:])
    encode = (lambda s: s + numpy_positions(*s.shape)) if positions else (lambda s: s)
    encoded = encode(states)
    h = numpy_attention(w / "attention", encoded, encoded, heads)
    ahead = [h[-1]]
    for _ in range(blocks - 1):
        state = numpy_gru(w / "gru", ahead[-1], states[-1])
        states = encode(np.vstack([states, state]))
        ahead.append(numpy_attention(w / "attention", state[None], states, heads)[0])
    return h, np.stack(ahead)


Layer = namedtuple("Layer", "gate diffusing diffused_residual residual diffused own")


def numpy_layer(w, x, context, supports, *, k_t, blocks, heads, positions):
    """One window ``[T, N, hidden]`` through a decoupled layer, with all that comes about on the way."""
    gate = sigmoid(w.linear("gate.map2", relu(w.linear("gate.map1", context[-len(x) :]))))
    diffusing = gate * x
    dif, inh = w / "diffusion", w / "inherent"

    h = numpy_conv(dif / "conv", diffusing, supports, k_t)
    ahead = [h[-1]]
    for _ in range(blocks - 1):
        past = [*diffusing[len(diffusing) - max(k_t - len(ahead), 0) :], *ahead[-k_t:]]
        ahead.append(numpy_conv(dif / "conv", np.stack(past), supports, k_t)[0])
    diffused = dif.linear("forecast", np.stack(ahead))
    left = dif.layer_norm("residual.norm", x[k_t - 1 :] - relu(dif.linear("residual.backcast", h)))

    per_node = [numpy_inherent(inh, left[:, n], blocks, heads, positions) for n in range(left.shape[1])]
    h, own = (np.stack(parts, axis=1) for parts in zip(*per_node, strict=True))  # [T', N, hidden], [blocks, N, hidden]
    residual = inh.layer_norm("residual.norm", left - relu(inh.linear("residual.backcast", h)))
    return Layer(gate, diffusing, left, residual, diffused, inh.linear("forecast", own))


def numpy_forecast(w, A, window, *, layers, k_t, k_s, gap, heads, horizon, steps_per_day):
    """One window ``[T, N, 3] -> [H, N, out]``."""
    blocks = -(-horizon // gap)
    index = np.rint(window[..., 1:] * (steps_per_day, 7)).astype(int)
    times = np.concatenate(
        [w["time_of_day.weight"][index[..., 0]], w["day_of_week.weight"][index[..., 1]]], axis=-1
    )  # [T, N, 2*c_time]
    u, d = w["node_u"], w["node_d"]
    nodes = np.broadcast_to(np.concatenate([u, d], axis=1), (*times.shape[:2], 2 * u.shape[1]))
    context = np.concatenate([times, nodes], axis=-1)
    found = numpy_dynamic_graphs(w / "dynamic_graph", window[..., 0], times[-1], (d, u), numpy_transitions(A))
    learned = softmax(relu(d @ u.T))
    supports = [P for graph in (*found, learned) for P in numpy_localized(graph, k_s, k_t)]

    x, total = w.linear("embed", window[..., :1]), 0.0
    for number in range(layers):
        layer = numpy_layer(
            *(w / f"layers.{number}", x, context, supports),
            k_t=k_t,
            blocks=blocks,
            heads=heads,
            positions=number == 0,
        )
        x, total = layer.residual, total + layer.diffused + layer.own
    y = w.linear("head.3", relu(w.linear("head.1", relu(total))))  # [blocks, N, gap*out]
    per_step = y.reshape(blocks, y.shape[1], gap, -1).transpose(0, 2, 1, 3)
    return per_step.reshape(blocks * gap, y.shape[1], -1)[:horizon]
