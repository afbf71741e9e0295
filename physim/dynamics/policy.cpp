// A policy of layers, each an affine map with an activation after it. `policy_in` holds how many
// layers, what the first one sees, widths and activations. A row of weights is filled up to whole
// vectors; its entry after the inputs belongs to a constant 1.
const int policy_layers = policy_in[0], policy_seen = policy_in[1];
const int policy_stride = policy_in[2], policy_size = policy_in[3];
const bool is_own = policy_in[4];  // every environment has its weights
const int* const policy_observe = policy_in + 5;
const int* const policy_width = policy_observe + policy_seen;
const int* const policy_kind = policy_width + policy_layers;
// Where the values of a layer's outputs start; its inputs are the outputs of the layer before.
const auto layer_place = [&](int layer) -> int {
  int place = layer ? policy_seen + 1 : 0;
  for (int i = 0; i + 1 < layer; ++i) place += policy_width[i] + 1;
  return place;
};
const auto row_length = [](int inputs) -> int { return (inputs + LANES) / LANES * LANES; };

const auto weights_of = [&](int step, int item) -> const double* {
  return weights_in + (size_t)step * policy_stride + (is_own ? (size_t)item * policy_size : 0);
};

// Values of all layers, one after the other, each followed by a 1. `rows` are the weights of every
// lane; unless they are `apart`, those of the first.
const auto run_layers = [&](const double* const* rows, bool apart,
                            V* input) __attribute__((noinline)) {
#pragma clang fp contract(fast)
  int inputs = policy_seen, from = 0;
  for (int layer = 0; layer < policy_layers; ++layer) {
    const int outputs = policy_width[layer], row = row_length(inputs);
    V* const output = input + inputs + 1;
    input[inputs] = V(1.0);
    int j = 0;
    for (; !apart && j + 4 <= outputs; j += 4) {
      const double* const w = rows[0] + from + (size_t)j * row;
      V s0 = V(0.0), s1 = V(0.0), s2 = V(0.0), s3 = V(0.0);
#pragma clang loop unroll(disable)
      for (int i = 0; i <= inputs; ++i) {
        const V x = input[i];
        s0 = s0 + w[i] * x;
        s1 = s1 + w[row + i] * x;
        s2 = s2 + w[2 * row + i] * x;
        s3 = s3 + w[3 * row + i] * x;
      }
      output[j] = s0;
      output[j + 1] = s1;
      output[j + 2] = s2;
      output[j + 3] = s3;
    }
    for (; j < outputs; ++j) {
      V s = V(0.0);
      if (apart) {
        const double* own[LANES];
        V w[POLICY_MOST];
        for (int l = 0; l < LANES; ++l) own[l] = rows[l] + from + (size_t)j * row;
        vgather_rows(own, inputs + 1, w);
        for (int i = 0; i <= inputs; ++i) s = s + w[i] * input[i];
      } else {
        const double* const w = rows[0] + from + (size_t)j * row;
        for (int i = 0; i <= inputs; ++i) s = s + w[i] * input[i];
      }
      output[j] = s;
    }
    for (j = 0; j < outputs; ++j) {
      if (policy_kind[layer] == 1) output[j] = vtanh(output[j]);
      if (policy_kind[layer] == 2) output[j] = output[j] > 0.0 ? output[j] : V(0.0);
    }
    from += outputs * row;
    input = output;
    inputs = outputs;
  }
};
const auto act = [&](const V* q, const V* v, const double* const* rows, bool apart, V* value,
                     V* control) {
  for (int i = 0; i < policy_seen; ++i) {
    const int place = policy_observe[i];
    value[i] = place < NQ ? q[place] : v[place - NQ];
  }
  run_layers(rows, apart, value);
  const V* const last = value + layer_place(policy_layers);
  for (int i = 0; i < NU; ++i) {
    const V low = V(bounds_in[i]), high = V(bounds_in[NU + i]), y = last[i];
    control[i] = y < low ? low : (y > high ? high : y);
  }
};
