// Reverse mode through a policy's layers. `bar` holds cotangents in the order of the values, those
// of the last layer given. Cotangents of shared weights add up over the lanes.
const auto reverse_layers = [&](const double* const* rows, const V* value, V* bar,
                                double* shared_bar, V* own_bar) __attribute__((noinline)) {
#pragma clang fp contract(fast)
  V turned[POLICY_MOST + LANES];
  double* const by_lane = (double*)turned;
  int from = 0;
  for (int layer = 0, inputs = policy_seen; layer < policy_layers; ++layer) {
    from += policy_width[layer] * row_length(inputs);
    inputs = policy_width[layer];
  }
  for (int layer = policy_layers - 1; layer >= 0; --layer) {
    const int inputs = layer ? policy_width[layer - 1] : policy_seen;
    const int outputs = policy_width[layer], row = row_length(inputs);
    const V* const input = value + layer_place(layer);
    const V* const output = value + layer_place(layer + 1);
    V* const bar_in = bar + layer_place(layer);
    V* const bar_out = bar + layer_place(layer + 1);
    from -= outputs * row;
    for (int j = 0; j < outputs; ++j) {
      if (policy_kind[layer] == 1) bar_out[j] = bar_out[j] * (1.0 - output[j] * output[j]);
      if (policy_kind[layer] == 2) bar_out[j] = output[j] > 0.0 ? bar_out[j] : V(0.0);
    }
    for (int i = 0; i < inputs; ++i) bar_in[i] = V(0.0);
    int j = 0;
    for (; !is_own && j + 4 <= outputs; j += 4) {
      const double* const w = rows[0] + from + (size_t)j * row;
      const V b0 = bar_out[j], b1 = bar_out[j + 1], b2 = bar_out[j + 2], b3 = bar_out[j + 3];
#pragma clang loop unroll(disable)
      for (int i = 0; i < inputs; ++i)
        bar_in[i] = bar_in[i] + w[i] * b0 + w[row + i] * b1 + w[2 * row + i] * b2 +
                    w[3 * row + i] * b3;
    }
    for (; j < outputs; ++j) {
      const double* own[LANES];
      for (int l = 0; l < LANES; ++l) own[l] = rows[l] + from + (size_t)j * row;
      vgather_rows(own, inputs + 1, turned);
      for (int i = 0; i < inputs; ++i) bar_in[i] = bar_in[i] + turned[i] * bar_out[j];
    }
    for (int l = 0; l < LANES && !is_own; ++l)
      for (int i = 0; i < row; ++i)
        by_lane[l * row + i] = i <= inputs ? vlane(input[i], l) : 0.0;
    for (j = 0; j < outputs; ++j) {
      const V bar_j = bar_out[j];
      if (is_own) {
        V* const sum = own_bar + from + (size_t)j * row;
#pragma clang loop unroll(disable)
        for (int i = 0; i <= inputs; ++i) sum[i] = sum[i] + input[i] * bar_j;
      } else {
        V* const sum = (V*)(shared_bar + from + (size_t)j * row);
        V of_lane[LANES];
        for (int l = 0; l < LANES; ++l) of_lane[l] = V(vlane(bar_j, l));
#pragma clang loop unroll(disable)
        for (int i = 0; i < row / LANES; ++i) {
          V s = sum[i];
          for (int l = 0; l < LANES; ++l) s = s + of_lane[l] * turned[l * (row / LANES) + i];
          sum[i] = s;
        }
      }
    }
  }
};
// Adds what the controls' cotangents (NU) mean for q, v and the weights. Lanes in which the policy
// saw no numbers pass nothing.
const auto pull_back_policy = [&](const V* q, const V* v, const V* bar_control, V real, int step,
                                  const Seats& at, V* bar_q, V* bar_v) {
  V value[POLICY_MOST], bar[POLICY_MOST], control[NU + 1];
  V total = V(0.0);
  for (int i = 0; i < NQ; ++i) total = total + q[i];
  for (int i = 0; i < NV; ++i) total = total + v[i];
  const M sane = (total * 0.0 == 0.0) & (real > 0.5);
  V seen_q[NQ + 1], seen_v[NV + 1];
  for (int i = 0; i < NQ; ++i) seen_q[i] = sane ? q[i] : V(0.0);
  for (int i = 0; i < NV; ++i) seen_v[i] = sane ? v[i] : V(0.0);
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l) rows[l] = weights_of(step, at.item[l]);
  act(seen_q, seen_v, rows, is_own, value, control);
  const V* const last = value + layer_place(policy_layers);
  V* const bar_last = bar + layer_place(policy_layers);
  for (int i = 0; i < NU; ++i) {
    const M inside = (last[i] >= bounds_in[i]) & (last[i] <= bounds_in[NU + i]);
    bar_last[i] = inside & sane ? bar_control[i] : V(0.0);
  }
  const int when = policy_stride ? step : 0;
  // Cotangents of weights: a row for this team, or one in lanes for this block.
  const size_t place = is_own ? ((size_t)when * own_blocks + at.item[0] / LANES) * LANES
                              : (size_t)when * sweep_blocks + block;
  double* const sum = bar_weights_out + place * policy_size;
  reverse_layers(rows, value, bar, sum, (V*)sum);
  for (int i = 0; i < policy_seen; ++i) {
    const int place = policy_observe[i];
    if (place < NQ) bar_q[place] = bar_q[place] + bar[i];
    else bar_v[place - NQ] = bar_v[place - NQ] + bar[i];
  }
};
