// Contacts between links on top of the tree's solution. With the tree's answer G to their impulses
// their increments solve (1 + C G) d = a - C u, a small dense system; the tree then answers d.
{
  const int many = pairs < PAIRS_MOST ? pairs : PAIRS_MOST, size = 3 * many;
  const auto relative = [&](int pair, int r) -> V {
    const V* const row = pair_rows[pair] + 6 * r;
    const V* const ta = twist + 6 * pair_a[pair];
    const V* const tb = twist + 6 * pair_b[pair];
    V sum = zero;
    for (int c = 0; c < 6; ++c) sum = sum + row[c] * ta[c] - row[18 + c] * tb[c];
    return sum;
  };
  const auto act = [&](int pair, int r, V strength) {
    const V* const row = pair_rows[pair] + 36 + 6 * r;
    V* const fa = react + 6 * pair_a[pair];
    V* const fb = react + 6 * pair_b[pair];
    for (int c = 0; c < 6; ++c) {
      fa[c] = fa[c] + strength * row[c];
      fb[c] = fb[c] - strength * row[c];
    }
  };
  if (many > 0) {
    V before[6 * (NL + 1)], kept[NV + 1];
    V answer[9 * PAIRS_MOST * PAIRS_MOST], system[9 * PAIRS_MOST * PAIRS_MOST];
    V change[3 * PAIRS_MOST], speed[3 * PAIRS_MOST];
    for (int p = 0; p < many; ++p)
      for (int r = 0; r < 3; ++r) speed[3 * p + r] = relative(p, r);
    for (int i = 0; i < 6 * (NL + 1); ++i) before[i] = twist[i];
    for (int i = 0; i < NV; ++i) kept[i] = dv[i];
    for (int column = 0; column < size; ++column) {
      for (int i = 0; i < 6 * (NL + 1); ++i) react[i] = twist[i] = zero;
      act(column / 3, column % 3, one);
      @REACT@
      for (int row = 0; row < size; ++row)
        answer[row * size + column] = relative(row / 3, row % 3);
    }
    for (int p = 0; p < many; ++p) {
      const V* const reply = pair_reply[p];
      for (int r = 0; r < 3; ++r) {
        const int row = 3 * p + r;
        change[row] = reply[r];
        for (int c = 0; c < 3; ++c) change[row] = change[row] - reply[3 + 3 * r + c] * speed[3 * p + c];
        for (int column = 0; column < size; ++column) {
          V sum = V(row == column ? 1.0 : 0.0);
          for (int c = 0; c < 3; ++c)
            sum = sum + reply[3 + 3 * r + c] * answer[(3 * p + c) * size + column];
          system[row * size + column] = sum;
        }
      }
    }
    // From the last row up: the normal comes last within a contact.
    for (int k = size - 1; k >= 0; --k) {
      determinant[0] = determinant[0] * system[k * size + k];
      const V per_pivot = one / system[k * size + k];
      for (int i = 0; i < k; ++i) {
        const V share = system[i * size + k] * per_pivot;
        change[i] = change[i] - share * change[k];
        for (int j = 0; j < k; ++j)
          system[i * size + j] = system[i * size + j] - share * system[k * size + j];
      }
    }
    for (int k = 0; k < size; ++k) {
      for (int j = 0; j < k; ++j) change[k] = change[k] - system[k * size + j] * change[j];
      change[k] = change[k] / system[k * size + k];
      pair_change[k / 3][k % 3] = change[k];
    }
    for (int i = 0; i < 6 * (NL + 1); ++i) {
      react[i] = zero;
      twist[i] = before[i];
    }
    for (int i = 0; i < NV; ++i) dv[i] = kept[i];
    for (int row = 0; row < size; ++row) act(row / 3, row % 3, change[row]);
    @REACT@
  }
  @FINISH@
}
